"""Data frames and Arrow tables: taken by writes (taking.py), made of what reads return (giving.py)."""

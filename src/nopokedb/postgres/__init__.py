"""The PostgreSQL engine: the same collection in tables of a PostgreSQL database with pgvector."""

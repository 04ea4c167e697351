"""The PostgreSQL engine beside code that a user would write by hand with psycopg and pgvector, on the same server."""

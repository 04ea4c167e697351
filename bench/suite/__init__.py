"""Search, ingestion, memory and scaling beside other libraries and databases: `python -m bench.suite`."""

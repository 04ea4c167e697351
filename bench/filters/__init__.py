"""The benchmark of filters, full text and hybrid search: `python -m bench.filters`."""

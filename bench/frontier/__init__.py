"""Which index is fastest at which recall: the indexes by themselves, one thread, exact rerank where they keep codes."""

"""Benchmarks, by how much they know of each other.

- `peers/`: the backends, one file each, behind the class `Peer`.
- `corpus`, `debian`, `embedding`, `real`, `datasets`: vectors, real and made, with their exact answers.
- `measure`, `timing`, `scoring`, `memory`, `bandwidth`, `machine`: one figure each.
- `conversation`, `run`, `report`: processes that are asked in turn, results that are kept, what every report has.
- `suite/` (`make bench`): search, ingestion, memory and scaling beside every peer.
- `filters/` (`make bench-filters`): filters, full text and hybrid search beside three of them.
- `seed` (`make bench-seed`): the original project's table, and the ratios this project first aimed for.
- `ann_benchmarks/`, `vectordbbench/`: adapters for harnesses of others.
"""

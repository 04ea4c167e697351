"""LanceDB with its own full-text index (stemmed, without stop words: its defaults) and its rank fusion."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lancedb
import pyarrow

from bench.datasets import Floats
from bench.filters.documents import Documents
from bench.peers.lancedb_peer import EF_CONSTRUCTION, LINKS, NAME, Backend
from bench.peers.texting import TextLoad
from bench.scale import BATCH_SIZE

EF, REFINE = 60, 3
FIELDS = ["id", "title", "tenth"]


class TextBackend:
    """Neither vectors nor texts are among the columns returned."""

    label = "LanceDB"
    packages: tuple[str, ...] = ("lancedb", "pyarrow", "numpy")
    syncs = Backend.syncs

    def __init__(self) -> None:
        self._table: Any = None

    def parameters(self) -> dict[str, object]:
        return {"index": "IVF_HNSW_SQ", "ef": EF, "refine_factor": REFINE, "fusion": "RRF"}

    def load(self, documents: Documents, folder: Path) -> TextLoad:
        metadatas = documents.metadatas()
        database = lancedb.connect(str(folder))
        started = time.perf_counter()
        for start in range(0, len(documents.texts), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            vectors = documents.vectors[part]
            rows = pyarrow.table(
                {
                    "id": pyarrow.array(range(start, start + len(vectors)), pyarrow.int64()),
                    "vector": pyarrow.FixedSizeListArray.from_arrays(
                        pyarrow.array(vectors.reshape(-1)), vectors.shape[1]
                    ),
                    "text": pyarrow.array(documents.texts[part]),
                    **{name: pyarrow.array([each[name] for each in metadatas[part]]) for name in ("title", "tenth")},
                }
            )
            if start == 0:
                self._table = database.create_table(NAME, rows)
            else:
                self._table.add(rows)
        written = time.perf_counter() - started
        self._table.optimize()
        self._table.create_fts_index("text")
        self.query(None, documents.queries[0], 1, False)
        searchable = time.perf_counter() - started - written
        self._table.create_index(
            metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1, m=LINKS, ef_construction=EF_CONSTRUCTION
        )
        self._table.create_scalar_index("tenth", index_type="BITMAP")
        return TextLoad(len(documents.texts) / written, searchable, time.perf_counter() - started - written)

    def open(self, folder: Path) -> None:
        self._table = lancedb.connect(str(folder)).open_table(NAME)

    def query(self, vector: Floats | None, text: str | None, k: int, tenth: bool) -> object:
        if vector is None:
            search = self._table.search(text, query_type="fts", fts_columns="text").select([*FIELDS, "_score"])
        elif text is None:
            search = self._table.search(vector).distance_type("cosine").ef(EF).refine_factor(REFINE)
            search = search.select([*FIELDS, "_distance"])
        else:
            search = self._table.search(query_type="hybrid", fts_columns="text").vector(vector).text(text)
            search = search.distance_type("cosine").ef(EF).refine_factor(REFINE).select(FIELDS)
        if tenth:
            search = search.where("tenth = 3")
        return search.limit(k).to_list()

    def ids(self, answer: Any) -> list[int]:
        return [row["id"] for row in answer]

    def close(self) -> None:
        self._table = None

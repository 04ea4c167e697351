"""zvec with a full-text index, stemmed, OR between words, and its rank fusion."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import zvec

from bench.datasets import Floats
from bench.filters.documents import Documents
from bench.peers.texting import TextLoad
from bench.peers.zvec_peer import EF_CONSTRUCTION, LINKS, VECTOR, Backend
from bench.scale import BATCH_SIZE

EF = 100


class TextBackend:
    """Asked with output of all fields but the text."""

    label = "zvec"
    packages: tuple[str, ...] = ("zvec", "numpy")
    syncs = Backend.syncs

    def __init__(self) -> None:
        self._collection: Any = None
        zvec.init(log_level=zvec.LogLevel.ERROR)

    def parameters(self) -> dict[str, object]:
        return {
            "M": LINKS,
            "ef_construction": EF_CONSTRUCTION,
            "ef": EF,
            "filters": "lowercase, stemmer",
            "fusion": "RRF",
        }

    def load(self, documents: Documents, folder: Path) -> TextLoad:
        words = zvec.FtsIndexParam(filters=["lowercase", "stemmer"])
        fields = [
            zvec.FieldSchema("title", zvec.DataType.STRING),
            zvec.FieldSchema("tenth", zvec.DataType.INT64, index_param=zvec.InvertIndexParam()),
            zvec.FieldSchema("text", zvec.DataType.STRING, index_param=words),
        ]
        graph = zvec.HnswIndexParam(metric_type=zvec.MetricType.COSINE, m=LINKS, ef_construction=EF_CONSTRUCTION)
        vector = zvec.VectorSchema(VECTOR, zvec.DataType.VECTOR_FP32, documents.vectors.shape[1], index_param=graph)
        self._collection = zvec.create_and_open(
            str(folder), zvec.CollectionSchema(name="bench", fields=fields, vectors=vector)
        )
        metadatas = documents.metadatas()
        started = time.perf_counter()
        for start in range(0, len(documents.texts), BATCH_SIZE):
            self._collection.insert(
                [
                    zvec.Doc(
                        id=str(row),
                        vectors={VECTOR: documents.vectors[row]},
                        fields={**metadatas[row], "text": documents.texts[row]},
                    )
                    for row in range(start, min(start + BATCH_SIZE, len(documents.texts)))
                ]
            )
        written = time.perf_counter() - started
        self.query(None, documents.queries[0], 1, False)
        searchable = time.perf_counter() - started - written
        self._collection.flush()
        self._collection.optimize()
        return TextLoad(len(documents.texts) / written, searchable, time.perf_counter() - started - written)

    def open(self, folder: Path) -> None:
        self._collection = zvec.open(str(folder))

    def query(self, vector: Floats | None, text: str | None, k: int, tenth: bool) -> object:
        queries = []
        if vector is not None:
            queries.append(zvec.Query(field_name=VECTOR, vector=vector, param=zvec.HnswQueryParam(ef=EF)))
        if text is not None:
            words = zvec.Fts(match_string=text)
            queries.append(zvec.Query(field_name="text", fts=words, param=zvec.FtsQueryParam(default_operator="OR")))
        return self._collection.query(
            queries,
            topk=k,
            filter="tenth = 3" if tenth else None,
            output_fields=["title", "tenth"],
            reranker=zvec.RrfReRanker() if len(queries) > 1 else None,
        )

    def ids(self, answer: Any) -> list[int]:
        return [int(document.id) for document in answer]

    def close(self) -> None:
        self._collection.close()

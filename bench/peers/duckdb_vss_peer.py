"""DuckDB with its extension `vss` (HNSW).

DuckDB fetches extensions from its own server on first use, which this benchmark does not do; the extension's wheel on
PyPI brings the file instead. On disk its index is experimental, and has to be allowed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow
from duckdb_extensions import import_extension

from bench.datasets import Floats
from bench.peers import Layout, Metadata, Peer, Setting
from bench.scale import BATCH_SIZE

FILE = "vectors.duckdb"
LINKS, EF_CONSTRUCTION, DEFAULT_EF = 16, 128, 64  # its defaults


class Backend(Peer):
    """The index is made after the load, as its documentation advises; one thread per query."""

    label = "DuckDB vss"
    packages: tuple[str, ...] = ("duckdb", "duckdb-extension-vss", "pyarrow", "numpy")
    syncs = "syncs its write-ahead log in every commit"
    largest_effort = 10_000
    takes_threads = False

    def __init__(self) -> None:
        self._connection: Any = None
        self._select = ""

    def parameters(self) -> dict[str, object]:
        return {"index": "HNSW", "M": LINKS, "ef_construction": EF_CONSTRUCTION, "batch_size": BATCH_SIZE}

    def _connect(self, folder: Path) -> None:
        import_extension("vss")
        self._connection = duckdb.connect(str(folder / FILE))
        self._connection.execute("LOAD vss")
        self._connection.execute("SET hnsw_enable_experimental_persistence = true")

    def _prepare(self, dim: int, fields: list[str]) -> None:
        columns = ", ".join(f'"{name}"' for name in fields)
        distance = f"array_cosine_distance(embedding, ?::FLOAT[{int(dim)}])"
        # Ordered by the column: with the expression twice, its parameter keeps the index from being used.
        self._select = f"SELECT id, {columns}, {distance} AS distance FROM items ORDER BY distance LIMIT ?"  # noqa: S608  # names of our own

    def create(self, folder: Path, layout: Layout) -> None:
        folder.mkdir(parents=True)
        self._connect(folder)
        kinds = {name: "BIGINT" if isinstance(value, int) else "VARCHAR" for name, value in layout.example.items()}
        columns = ", ".join(f'"{name}" {kind}' for name, kind in kinds.items())
        self._connection.execute(f"CREATE TABLE items (id BIGINT, embedding FLOAT[{int(layout.dim)}], {columns})")
        self._prepare(layout.dim, list(layout.example))

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        columns = {"id": pyarrow.array(range(start, start + len(vectors)), pyarrow.int64())}
        flat = pyarrow.array(vectors.reshape(-1))
        columns["embedding"] = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        columns |= {name: pyarrow.array([each[name] for each in metadatas]) for name in metadatas[0]}
        self._connection.register("batch", pyarrow.table(columns))
        self._connection.execute("INSERT INTO items SELECT * FROM batch")
        self._connection.unregister("batch")

    def finish(self) -> None:
        shape = f"metric = 'cosine', M = {LINKS}, ef_construction = {EF_CONSTRUCTION}"
        self._connection.execute(f"CREATE INDEX nearest ON items USING HNSW (embedding) WITH ({shape})")
        self._connection.execute("CHECKPOINT")
        self._connection.execute("SET threads = 1")

    def open(self, folder: Path) -> None:
        self._connect(folder)
        self._connection.execute("SET threads = 1")
        described = self._connection.execute("DESCRIBE items").fetchall()
        kinds = {row[0]: row[1] for row in described}
        dim = int(kinds["embedding"].removeprefix("FLOAT[").removesuffix("]"))
        self._prepare(dim, [name for name in kinds if name not in ("id", "embedding")])

    def use(self, setting: Setting) -> None:
        self._connection.execute(f"SET hnsw_ef_search = {int(setting.get('ef', DEFAULT_EF))}")

    def query(self, vector: Floats, k: int) -> object:
        return self._connection.execute(self._select, [vector.tolist(), k]).fetchall()

    def ids(self, answer: Any) -> list[int]:
        return [int(row[0]) for row in answer]

    def close(self) -> None:
        self._connection.close()

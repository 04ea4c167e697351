"""Writes `tests/data/foreign.tar.gz`: small collections as other programs leave them, and what these programs
themselves say is in them. Run it with these programs in an environment of their own; what it wrote is kept.

    python -m pip install chromadb==1.5.9 qdrant-client==1.20.0 faiss-cpu==1.15.1 hnswlib==0.8.0 usearch==2.26.6 \
        sqlite-vec==0.1.9 apsw numpy
    python tests/make_foreign_folders.py [FOLDER]

With FOLDER the files are left there in place of the archive; `NOPOKEDB_TEST_FOREIGN=FOLDER` makes tests/test_moving.py
read them, so that other versions of the programs can be tried.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

DIM = 8
UUID = "550e8400-e29b-41d4-a716-446655440000"
Told = dict[str, Any]


def vectors_of(count: int) -> np.ndarray:
    """The same numbers on every machine and version."""
    grid = np.arange(count * DIM, dtype=np.float64).reshape(count, DIM)
    return (np.sin(grid * 0.37 + 1) + np.cos(grid * 0.011) * 0.5).astype(np.float32)


VECTORS = vectors_of(60)
QUERIES = vectors_of(65)[60:] + np.float32(0.01)


def told(
    space: str, records: Sequence[tuple[Any, Any, Any, Any]], nearest: Sequence[Sequence[Any]], options: Any = None
) -> Told:
    """What a program says: (id, vector, metadata, text) of each record, and the ten nearest of each question."""
    return {
        "space": space,
        "options": options or {},
        "records": [[i, [float(x) for x in v], m or {}, t] for i, v, m, t in records],
        "nearest": [list(ids) for ids in nearest],
    }


def chroma(root: Path) -> dict[str, Told]:
    import chromadb

    client = chromadb.PersistentClient(str(root / "chroma"), settings=chromadb.Settings(anonymized_telemetry=False))
    # Never written to an index: all of it stands in the log.
    books = client.create_collection("books", metadata={"hnsw:space": "cosine"}, embedding_function=None)
    books.add(
        ids=[f"b{n}" for n in range(40)],
        embeddings=VECTORS[:40].tolist(),
        metadatas=[{"n": n, "half": n / 2, "word": "é", "even": n % 2 == 0} for n in range(40)],
        documents=[f"text {n}" for n in range(40)],
    )
    books.delete(ids=["b3"])
    books.update(ids=["b4"], embeddings=[VECTORS[50].tolist()], metadatas=[{"word": None, "new": 1}])
    books.upsert(ids=["b5", "late"], embeddings=VECTORS[51:53].tolist(), documents=["replaced", "late"])
    books.add(ids=["b6"], embeddings=[VECTORS[59].tolist()])  # is there: nothing happens
    # In the index, with later changes in the log.
    many = client.create_collection("many", metadata=INDEX_SOON, embedding_function=None)
    for start in range(0, 60, 15):
        ids = [f"m{n}" for n in range(start, start + 15)]
        many.add(ids=ids, embeddings=VECTORS[start : start + 15].tolist(), metadatas=[{"n": i} for i in ids])
    many.delete(ids=["m7", "m8"])
    many.update(ids=["m9"], embeddings=[VECTORS[0].tolist()])
    many.add(ids=["m8"], embeddings=[VECTORS[1].tolist()])
    unit = client.create_collection("unit", metadata={**INDEX_SOON, "hnsw:space": "cosine"}, embedding_function=None)
    unit.add(ids=[f"u{n}" for n in range(60)], embeddings=VECTORS.tolist())
    found = {}
    for collection, space in ((books, "cosine"), (many, "l2"), (unit, "cosine")):
        got = collection.get(include=["embeddings", "metadatas", "documents"])
        asked = collection.query(query_embeddings=QUERIES.tolist(), n_results=10)
        rows = list(zip(got["ids"], got["embeddings"], got["metadatas"], got["documents"], strict=True))
        found[f"chroma-{collection.name}"] = told(space, rows, asked["ids"], {"collection": collection.name})
    client._system.stop()
    return found


INDEX_SOON = {"hnsw:space": "l2", "hnsw:batch_size": 10, "hnsw:sync_threshold": 20}


def qdrant(root: Path) -> dict[str, Told]:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(root / "qdrant"))
    size = {"size": DIM}
    client.create_collection("books", models.VectorParams(**size, distance=models.Distance.COSINE))
    points = [
        models.PointStruct(id=n, vector=VECTORS[n].tolist(), payload={"n": n, "l": [1, None, "é"], "o": {"a": 1.5}})
        for n in range(30)
    ]
    client.upsert("books", [*points, models.PointStruct(id=UUID, vector=VECTORS[31].tolist(), payload={"body": "t"})])
    client.delete("books", points_selector=[3])
    client.set_payload("books", {"x": True}, points=[4])
    client.upsert("books", [models.PointStruct(id=5, vector=VECTORS[40].tolist(), payload={})])
    two = {
        "first": models.VectorParams(**size, distance=models.Distance.EUCLID),
        "second": models.VectorParams(size=2, distance=models.Distance.DOT),
    }
    client.create_collection("named", two)
    client.upsert(
        "named",
        [
            models.PointStruct(id=n, vector={"first": VECTORS[n].tolist(), "second": [1.0, n]}, payload={})
            for n in range(20)
        ],
    )
    found = {}
    for name, vector, space in (("books", None, "cosine"), ("named", "first", "l2")):
        rows = []
        for point in client.scroll(name, limit=100, with_vectors=True)[0]:
            row = point.vector[vector] if vector else VECTORS[[*range(60)][_number(point.id)]]
            rows.append((point.id, row, point.payload, None))
        asked = [client.query_points(name, query=q.tolist(), using=vector, limit=10).points for q in QUERIES]
        nearest = [[point.id for point in points] for points in asked]
        options = {"collection": name, **({"vector": vector} if vector else {})}
        found[f"qdrant-{name}"] = told(space, rows, nearest, options)
    client.close()
    return found


def _number(id_: Any) -> int:
    """Which vector a point was given: under cosine the client answers with its direction only."""
    return {UUID: 31, 5: 40}.get(id_, id_)


def faiss(root: Path) -> dict[str, Told]:
    import faiss as library

    flat = library.IndexFlatL2(DIM)
    flat.add(VECTORS)
    mapped = library.IndexIDMap2(library.IndexFlatIP(DIM))
    mapped.add_with_ids(VECTORS, np.arange(60) * 7 + 5)
    hnsw = library.IndexHNSWFlat(DIM, 8)
    hnsw.add(VECTORS)
    inverted = library.IndexIVFFlat(library.IndexFlatL2(DIM), DIM, 4)
    inverted.train(VECTORS)
    inverted.nprobe = 4
    inverted.add_with_ids(VECTORS, np.arange(60) + 100)
    found = {}
    for name, index, space in (
        ("flat", flat, "l2"),
        ("map", mapped, "ip"),
        ("hnsw", hnsw, "l2"),
        ("ivf", inverted, "l2"),
    ):
        library.write_index(index, str(root / f"{name}.faiss"))
        first = {"map": lambda n: n * 7 + 5, "ivf": lambda n: n + 100}.get(name, lambda n: n)
        _, nearest = index.search(QUERIES, 10)
        rows = [(first(n), VECTORS[n], None, None) for n in range(60)]
        found[f"{name}.faiss"] = told(space, rows, nearest.tolist())
    for name in ("PQ4x4", "SQ8", "IVF4,PQ4x4"):
        lossy = library.index_factory(DIM, name)
        lossy.train(VECTORS)
        lossy.add(VECTORS)
        library.write_index(lossy, str(root / f"lossy-{name}.faiss"))
    return found


def hnswlib(root: Path) -> dict[str, Told]:
    import hnswlib as library

    index = library.Index("l2", DIM)
    index.init_index(100)
    index.add_items(VECTORS, np.arange(60) + 3)
    index.mark_deleted(10)
    index.save_index(str(root / "index.hnswlib"))
    ids = [id_ for id_ in index.get_ids_list() if id_ != 10]
    nearest, _ = index.knn_query(QUERIES, 10)
    rows = [(id_, v, None, None) for id_, v in zip(ids, index.get_items(ids), strict=True)]
    return {"index.hnswlib": told("l2", rows, nearest.tolist(), {"space": "l2"})}


def usearch(root: Path) -> dict[str, Told]:
    from usearch.index import Index

    found = {}
    for name, metric, space in (("cos", "cos", "cosine"), ("l2", "l2sq", "l2"), ("ip", "ip", "ip")):
        index = Index(ndim=DIM, metric=metric, dtype="f32")
        index.add(np.arange(60) + 9, VECTORS)
        index.remove(12)
        index.save(str(root / f"{name}.usearch"))
        rows = [(int(key), index[int(key)], None, None) for key in index.keys]
        nearest = [[int(key) for key in index.search(q, 10, exact=True).keys] for q in QUERIES]
        found[f"{name}.usearch"] = told(space, rows, nearest)
    for kind in ("f16", "i8"):
        index = Index(ndim=DIM, metric="cos", dtype=kind)
        index.add(np.arange(60), VECTORS)
        index.save(str(root / f"lossy-{kind}.usearch"))
    return found


def sqlite_vec(root: Path) -> dict[str, Told]:
    import apsw
    import sqlite_vec as library

    db = apsw.Connection(str(root / "vec.db"))
    db.enable_load_extension(True)
    db.load_extension(library.loadable_path())
    db.execute(
        "CREATE VIRTUAL TABLE books USING vec0(embedding float[8] distance_metric=cosine, year integer, title text,"
        " good boolean, score float, +body text)"
    )
    for n in range(60):
        row = (
            n + 1,
            VECTORS[n].tobytes(),
            2000 + n,
            f"t{n}é" * (1 + n % 9),
            n % 2,
            n / 2,
            f"body {n}" if n % 3 else None,
        )
        db.execute("INSERT INTO books(rowid, embedding, year, title, good, score, body) VALUES (?,?,?,?,?,?,?)", row)
    db.execute("DELETE FROM books WHERE rowid = 7")
    db.execute("UPDATE books SET embedding = ? WHERE rowid = 9", (VECTORS[0].tobytes(),))
    db.execute('CREATE VIRTUAL TABLE "key ed" USING vec0(key text primary key, v float[8], part integer partition key)')
    for n in range(20):
        db.execute('INSERT INTO "key ed"(key, v, part) VALUES (?,?,?)', (f"k{n}", VECTORS[n].tobytes(), n % 3))
    db.execute("CREATE VIRTUAL TABLE tiny USING vec0(v int8[8])")
    names = ("year", "title", "good", "score", "body")
    rows: list[tuple[Any, Any, Any, Any]] = []
    for rowid, vector, *cells in db.execute("SELECT rowid, embedding, year, title, good, score, body FROM books"):
        metadata = {k: v for k, v in zip(names, cells, strict=True) if v is not None and k != "body"}
        metadata["good"] = bool(metadata["good"])
        rows.append((rowid, np.frombuffer(vector, "<f4"), metadata, cells[-1]))
    query = "SELECT rowid FROM books WHERE embedding MATCH ? AND k = 10 ORDER BY distance"
    nearest = [[row[0] for row in db.execute(query, (q.tobytes(),))] for q in QUERIES]
    found = {"vec.db-books": told("cosine", rows, nearest, {"collection": "books", "text": "body"})}
    rows = [
        (key, np.frombuffer(vector, "<f4"), {"part": part}, None)
        for key, vector, part in db.execute('SELECT key, v, part FROM "key ed"')
    ]
    query = 'SELECT key FROM "key ed" WHERE v MATCH ? AND k = 10 ORDER BY distance'
    nearest = [[row[0] for row in db.execute(query, (q.tobytes(),))] for q in QUERIES]
    found["vec.db-keyed"] = told("l2", rows, nearest, {"collection": "key ed"})
    db.close()
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        root.mkdir(exist_ok=True)
        found: dict[str, Told] = {}
        for program in (chroma, qdrant, faiss, hnswlib, usearch, sqlite_vec):
            found |= program(root)
        (root / "told.json").write_text(json.dumps({"queries": QUERIES.tolist(), "collections": found}))
        if len(sys.argv) > 1:
            return
        target = Path(__file__).parent / "data" / "foreign.tar.gz"
        with tarfile.open(target, "w:gz") as archive:
            for path in sorted(root.iterdir()):
                archive.add(path, arcname=path.name)
        print(target, target.stat().st_size, "bytes")


if __name__ == "__main__":
    main()

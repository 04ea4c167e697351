"""Scripts written for the original package (up to 0.5.1) run unchanged, but for what is documented as different.

The bodies use positions and keywords exactly as that package's signatures had them:

    NoPokeDB(dim, max_elements, path="./data", space="cosine", M=16, ef_construction=200, ef=50)
    add(vector, metadata)   add_many(vectors, metadatas)   query(vector, k=5, ef=None)
    get(vid)   delete(vid)   upsert(vid, vector=None, metadata=None)   save()   close()
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nopokedb import InvalidInputError, NoPokeDB

SPACES = ("cosine", "l2", "ip")


def as_the_original_scored(space: str, query: np.ndarray, vector: np.ndarray) -> tuple[float, float]:
    """Score and distance: 1 - distance under cosine, minus the distance elsewhere. (Under ip we differ in score.)"""
    q, v = query.astype(np.float64), vector.astype(np.float64)
    if space == "l2":
        distance = float(((q - v) ** 2).sum())
        return -distance, distance
    dot = float(q @ v)
    if space == "ip":
        return dot, 1.0 - dot
    distance = 1.0 - dot / float(np.linalg.norm(q) * np.linalg.norm(v))
    return 1.0 - distance, distance


@pytest.mark.parametrize("space", SPACES)
def test_quick_start_of_the_original_runs(tmp_path: Path, space: str, rng: np.random.Generator) -> None:
    """Its README's script, with all arguments by position."""
    path = str(tmp_path / "vdb_data")
    db = NoPokeDB(128, 10_000, path, space, 16, 200, 50)  # type: ignore[arg-type]

    vec = rng.random(128).astype(np.float32)
    vid = db.add(vec, {"name": "foo"})
    assert vid == 0

    V = rng.random((5, 128)).astype(np.float32)
    metas = [{"i": i} for i in range(len(V))]
    ids = db.add_many(V, metas)
    assert ids == [1, 2, 3, 4, 5]

    q = rng.random(128).astype(np.float32)
    hits = db.query(q, 3)
    assert len(hits) == 3
    every = {0: vec, **dict(zip(ids, V, strict=True))}
    for h in hits:
        score, distance = as_the_original_scored(space, q, every[h["id"]])
        assert h["score"] == pytest.approx(score, rel=1e-9)
        assert h["distance"] == pytest.approx(distance, rel=1e-9)
        assert h["metadata"] == ({"name": "foo"} if h["id"] == 0 else {"i": h["id"] - 1})
    assert [h["score"] for h in hits] == sorted((h["score"] for h in hits), reverse=True)
    assert set(hits[0]) == {"id", "metadata", "score", "distance"}

    assert db.get(vid) == {"name": "foo"}
    db.upsert(vid, metadata={"name": "bar"})
    assert db.get(vid) == {"name": "bar"}
    assert db.delete(ids[0]) is True
    assert db.delete(ids[0]) is False
    assert db.get(ids[0]) is None

    db.save()
    db.close()

    db = NoPokeDB(dim=128, max_elements=10_000, path=path, space=space)  # type: ignore[arg-type]
    assert db.get(vid) == {"name": "bar"}
    assert ids[0] not in [h["id"] for h in db.query(q, k=10)]
    assert db.add(vec, metadata={}) == 6
    db.close()


@pytest.mark.parametrize("space", SPACES)
def test_every_argument_by_the_original_s_keyword(tmp_path: Path, space: str, rng: np.random.Generator) -> None:
    """`vid`, `vector`, `metadata`, `vectors`, `metadatas`, `k`, `ef` keep their names."""
    db = NoPokeDB(
        dim=4,
        max_elements=100,
        path=str(tmp_path / "data"),
        space=space,  # type: ignore[arg-type]
        M=8,
        ef_construction=100,
        ef=30,
    )
    rows = rng.normal(size=(40, 4)).astype(np.float32)
    assert db.add(vector=rows[0], metadata={"n": 0}) == 0
    assert db.add_many(vectors=rows[1:], metadatas=[{"n": n} for n in range(1, 40)]) == list(range(1, 40))
    db.upsert(vid=0, vector=rows[1], metadata={"n": "new"})
    db.upsert(vid=77, vector=rows[0], metadata={"n": 77})
    assert db.get(vid=0) == {"n": "new"} and db.get(vid=77) == {"n": 77}
    assert len(db.query(vector=rows[0], k=10, ef=200)) == 10
    assert db.delete(vid=0) is True
    assert db.get(vid=0) is None
    db.close()


def test_original_s_defaults_and_parameter_order_are_kept() -> None:
    """Positional calls mean the same; what is new comes behind or by keyword."""
    constructor = inspect.signature(NoPokeDB).parameters
    assert list(constructor)[:7] == ["dim", "max_elements", "path", "space", "M", "ef_construction", "ef"]
    assert [constructor[name].default for name in ("path", "space", "M", "ef_construction")] == [
        "./data",
        "cosine",
        16,
        200,
    ]
    for method, names in (
        (NoPokeDB.add, ["self", "vector", "metadata"]),
        (NoPokeDB.add_many, ["self", "vectors", "metadatas"]),
        (NoPokeDB.query, ["self", "vector", "k", "ef"]),
        (NoPokeDB.upsert, ["self", "id", "vector", "metadata"]),
        (NoPokeDB.get, ["self", "id"]),
        (NoPokeDB.delete, ["self", "id"]),
    ):
        assert list(inspect.signature(method).parameters)[: len(names)] == names
    assert inspect.signature(NoPokeDB.query).parameters["k"].default == 5


def test_attributes_that_scripts_read_are_there(tmp_path: Path) -> None:
    """The constructor's arguments can be read back from the handle."""
    path = str(tmp_path / "data")
    db = NoPokeDB(4, 100, path, "l2", 8, 100, 30)
    assert (db.dim, db.max_elements, db.path, db.space, db.ef) == (4, 100, path, "l2", 30)
    assert (db.M, db.ef_construction) == (8, 100)
    db.close()


def test_default_path_is_data_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the original: ./data, created if missing."""
    monkeypatch.chdir(tmp_path)
    db = NoPokeDB(4, 10)
    db.add([1, 2, 3, 4], {"a": 1})
    db.close()
    assert (tmp_path / "data").is_dir()
    with NoPokeDB(path="data") as db:
        assert db.get(0) == {"a": 1}


def test_hit_prints_as_the_original_printed_it(tmp_path: Path) -> None:
    """A dict with id, metadata, score and distance in this order."""
    with NoPokeDB(2, 10, str(tmp_path / "data")) as db:
        db.add([1, 0], {"name": "foo"})
        assert repr(db.query([1, 0])) == "[{'id': 0, 'metadata': {'name': 'foo'}, 'score': 1.0, 'distance': 0.0}]"


@pytest.mark.parametrize("wrong", [[1.0, 2.0], np.ones((1, 4)), np.ones(5)])
def test_wrong_shape_is_a_value_error_as_before(tmp_path: Path, wrong: Any) -> None:
    """Scripts that caught ValueError still do."""
    with NoPokeDB(4, 10, str(tmp_path / "data")) as db:
        for call in (lambda: db.add(wrong, {}), lambda: db.query(wrong), lambda: db.upsert(0, wrong, {})):
            with pytest.raises(ValueError, match=r"shape \(4,\), got"):
                call()


def test_more_than_max_elements_fit_as_before(tmp_path: Path) -> None:
    """The collection grows."""
    with NoPokeDB(4, 3, str(tmp_path / "data")) as db:
        db.add_many(np.ones((10, 4)), [{} for _ in range(10)])
        assert len(db.query([1, 1, 1, 1], k=100)) == 10


# --- documented differences --------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
def test_difference_empty_collection_answers_with_nothing(tmp_path: Path, space: str) -> None:
    """The original raised RuntimeError."""
    with NoPokeDB(4, 10, str(tmp_path / "data"), space) as db:  # type: ignore[arg-type]
        assert db.query([1, 2, 3, 4], 5) == []


def test_difference_new_id_needs_a_vector(tmp_path: Path) -> None:
    """The original kept metadata without a vector, which no query could find."""
    with NoPokeDB(4, 10, str(tmp_path / "data")) as db:
        with pytest.raises(InvalidInputError, match="vector"):
            db.upsert(5, metadata={"a": 1})
        assert db.get(5) is None
        db.upsert(5, [1, 2, 3, 4])
        assert db.get(5) == {}


def test_difference_score_under_ip_is_the_dot_product(tmp_path: Path) -> None:
    """The original gave minus the distance, which is the dot product less 1; distance and order are as before."""
    with NoPokeDB(2, 10, str(tmp_path / "data"), "ip") as db:
        db.add_many(np.array([[1, 0], [0, 3], [-2, 0]], np.float32), [{}, {}, {}])
        hits = db.query([2, 1], 3)
        assert [(h["id"], h["score"], h["distance"]) for h in hits] == [(1, 3, -2), (0, 2, -1), (2, -4, 5)]


@pytest.mark.parametrize("space", SPACES)
def test_difference_deletes_and_upserts_survive_without_save(tmp_path: Path, space: str) -> None:
    """The original lost vectors that were changed after the last `save`, and brought deleted ones back."""
    path = str(tmp_path / "data")
    first, second, third = np.eye(3, dtype=np.float32)
    db = NoPokeDB(3, 10, path, space)  # type: ignore[arg-type]
    db.add_many(np.stack([first, second]), [{"n": 0}, {"n": 1}])
    db.save()
    db.delete(0)
    db.upsert(1, third, {"n": "moved"})
    copy = tmp_path / "copy"
    # What a killed process leaves behind: the folder as it is now, without a save or a close.
    _copy_folder(Path(path), copy)
    db.close()
    for folder in (path, copy):
        db = NoPokeDB(3, 10, str(folder), space)  # type: ignore[arg-type]
        assert db.get(0) is None and db.get(1) == {"n": "moved"}
        assert [h["id"] for h in db.query(third, 5)] == [1]
        assert db.query(third, 1, None)[0]["score"] == (0.0 if space == "l2" else 1.0)
        assert db.add(first, {}) == 2
        db.close()


def test_difference_k_is_checked(tmp_path: Path) -> None:
    """The original raised k to 1 in silence."""
    with NoPokeDB(4, 10, str(tmp_path / "data")) as db, pytest.raises(ValueError, match="k"):
        db.query([1, 2, 3, 4], 0)


def _copy_folder(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            copied = target / path.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())

"""Collections with a model: vectors from texts, which vectors a new text replaces, and which model is accepted."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nopokedb import InvalidInputError, InvalidVectorError, NoPokeDB, SettingsMismatchError
from nopokedb.embedding.names import make_embedder

DIM = 16


def words(texts: list[str]) -> np.ndarray:
    """A bag of hashed words: a model whose every number can be told."""
    rows = np.full((len(texts), DIM), 0.01, np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().split():
            row[zlib.crc32(word.encode()) % DIM] += 1
    return rows


def other(texts: list[str]) -> np.ndarray:
    return words(texts)[:, ::-1]


other.__qualname__ = words.__qualname__

Vectors = Callable[[list[str]], np.ndarray]


@pytest.fixture
def model(engine: dict[str, Any]) -> tuple[Any, Vectors]:
    """What `embed=` gets, and what it makes of texts: a callable, or at a server one of those that it has."""
    if "://" in str(engine["path"]) and not str(engine["path"]).startswith("postgresql:"):
        pytest.importorskip("wordllama")
        return "wordllama", make_embedder("wordllama")
    return words, words


@pytest.mark.engines
def test_vectors_come_from_texts(open_db: Callable[..., NoPokeDB], model: tuple[Any, Vectors]) -> None:
    """`add(text=...)` computes the vector, `query("words")` too; `dim` is the model's."""
    embed, made = model
    db = open_db(embed=embed)
    assert db.dim == made(["x"]).shape[1]
    cat = db.add(text="the cat sat")
    dog, bird = db.add_many(texts=["a dog ran", "one bird flew"])
    assert np.array_equal(db[cat].vector, made(["the cat sat"])[0])
    assert [hit.id for hit in db.query("dog ran", k=1)] == [dog]
    assert [hits[0].id for hits in db.query_many(["bird flew", "the cat"], k=1)] == [bird, cat]
    assert db.query("dog", text="cat", k=3)[0].id in (cat, dog)
    assert db.query(made(["dog ran"])[0], k=1)[0].id == dog
    with db.batch() as b:
        fish = b.add(text="fish swim")
    assert np.array_equal(db[fish].vector, made(["fish swim"])[0])


@pytest.mark.engines
def test_a_new_text_moves_only_computed_vectors(open_db: Callable[..., NoPokeDB], model: tuple[Any, Vectors]) -> None:
    """A vector that was given by hand outlives new texts; also across reopening, batches and metadata changes."""
    embed, made = model
    db = open_db(embed=embed)
    hand = np.arange(db.dim, dtype=np.float32)
    db.upsert("computed", text="old words")
    db.upsert("hand", hand, text="old words")
    db.upsert("computed", metadata={"n": 1})
    db.close()
    db = open_db(embed=embed)
    db.upsert_many(["computed", "hand", "new"], texts=["new words", "new words", "new words"])
    assert np.array_equal(db["computed"].vector, made(["new words"])[0])
    assert np.array_equal(db["new"].vector, made(["new words"])[0])
    assert np.array_equal(db["hand"].vector, hand)
    assert db["hand"].text == "new words" and db["computed"].metadata == {"n": 1}
    with db.batch() as b:
        b.upsert("computed", text="in a batch")
        b.upsert("computed", text="twice in a batch")
        b.upsert("hand", text="in a batch")
        b.upsert("given", hand)
        b.upsert("given", text="after that")
    assert np.array_equal(db["computed"].vector, made(["twice in a batch"])[0])
    assert np.array_equal(db["hand"].vector, hand) and np.array_equal(db["given"].vector, hand)
    db.upsert("computed", hand)
    db.upsert("computed", text="stays where it is")
    assert np.array_equal(db["computed"].vector, hand)
    db.upsert_many(["computed", "new"], texts=[None, "moved"], metadatas=[{"a": 1}, None])
    assert np.array_equal(db["new"].vector, made(["moved"])[0]) and db["computed"].text == "stays where it is"


def test_crash_keeps_how_vectors_came(open_db: Callable[..., NoPokeDB], tmp_path: Any) -> None:
    """Recovery from the log knows too which vectors were computed."""
    import shutil
    from pathlib import Path

    db = open_db(embed=words)
    db.add(id=1, text="one")
    db.upsert(2, np.ones(DIM), text="two")
    shutil.copytree(Path(db.path), tmp_path / "crashed")
    with NoPokeDB(path=tmp_path / "crashed", embed=words) as again:
        again.upsert_many([1, 2], texts=["three", "three"])
        assert np.array_equal(again[1].vector, words(["three"])[0]) and np.array_equal(again[2].vector, np.ones(DIM))


@pytest.mark.engines(without=("rest", "grpc"))
def test_another_model_is_refused(open_db: Callable[..., NoPokeDB]) -> None:
    """Name and fingerprint are stored; a different one of either is an error that names both."""
    db = open_db(embed=words)
    db.add(text="one")
    db.close()
    with pytest.raises(SettingsMismatchError, match="fingerprint"):
        open_db(embed=other)
    with pytest.raises(SettingsMismatchError, match=r"words.*lambda"):
        open_db(embed=lambda texts: words(texts))
    db = open_db()
    assert len(db) == 1
    with pytest.raises(InvalidInputError, match="embed="):
        db.query("words")
    with pytest.raises(InvalidVectorError, match="embed="):
        db.add(text="two")
    db.upsert(0, text="kept without the model")


@pytest.mark.engines
def test_a_model_for_a_collection_without_one_is_refused(
    open_db: Callable[..., NoPokeDB], model: tuple[Any, Vectors]
) -> None:
    """It would mix vectors of the model with others."""
    open_db(dim=DIM).close()
    with pytest.raises(SettingsMismatchError):
        open_db(embed=model[0])


@pytest.mark.engines(without=("rest", "grpc"))
@pytest.mark.parametrize(
    "embed", [5, "no-such-model", lambda texts: 5, lambda texts: np.ones(DIM), lambda texts: np.full((1, DIM), np.nan)]
)
def test_bad_models_are_refused(open_db: Callable[..., NoPokeDB], embed: Any) -> None:
    """What is no model, or returns no vectors, is refused before a folder is made."""
    with pytest.raises((InvalidInputError, TypeError, ValueError)):
        open_db(embed=embed)
    with pytest.raises(InvalidInputError, match="dim="):
        open_db(dim=3, embed=words)


@pytest.mark.engines
def test_nothing_to_compute_from(open_db: Callable[..., NoPokeDB], model: tuple[Any, Vectors]) -> None:
    """Without vector and text there is nothing to store."""
    db = open_db(embed=model[0])
    for call in (lambda: db.add(), lambda: db.add_many(texts=["a", None]), lambda: db.add_many(metadatas=[{}])):
        with pytest.raises(InvalidVectorError, match="expected"):
            call()
    assert len(db) == 0


@pytest.mark.engines
def test_the_model_inside_a_wheel(open_db: Callable[..., NoPokeDB]) -> None:
    """By name, found again by itself at the next open."""
    pytest.importorskip("wordllama")
    db = open_db(embed="wordllama")
    db.add_many(texts=["a kitten plays with wool", "the stock market fell", "rain is expected tomorrow"])
    assert db.dim == 256 and db.query("young cat", k=1)[0].id == 0
    db.close()
    assert open_db().query("weather forecast", k=1)[0].id == 2


def test_a_model_leaves_the_programs_logging_alone(tmp_path: Path) -> None:
    """Opening a collection with a model prints nothing and adds no handler, whatever the model's package does."""
    code = (
        "import logging; root = logging.getLogger(); root.setLevel(logging.ERROR)\n"
        "from nopokedb import NoPokeDB\n"
        "with NoPokeDB(path='db', embed='wordllama') as db: db.add(text='words'); db.query('words')\n"
        "print(root.handlers, root.level == logging.ERROR)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("[] True\n", "")

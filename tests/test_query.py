"""Queries beyond the nearest vector: text, hybrid, examples, diversity, groups; each against its definition."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nopokedb import Group, InvalidInputError, NoPokeDB, RecordNotFoundError

pytestmark = pytest.mark.engines

DIM = 8
WORDS = ["apple", "bridge", "candle", "desert", "engine", "forest", "garden", "harbour"]
Made = tuple[NoPokeDB, np.ndarray, list[str]]


@pytest.fixture
def made(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> Made:
    """200 records with vectors, texts, a group, and nested metadata."""
    vectors = rng.standard_normal((200, DIM)).astype(np.float32)
    texts = [" ".join(rng.choice(WORDS, 5)) for _ in range(200)]
    db = open_db(dim=DIM)
    db.add_many(vectors, [{"group": i % 20, "kind": "ab"[i % 2]} for i in range(200)], texts=texts)
    return db, vectors, texts


def cosine(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    v, q = vectors.astype(np.float64), np.asarray(query, np.float32).astype(np.float64)
    return v @ q / np.linalg.norm(v, axis=1) / np.linalg.norm(q)


def test_text_alone(made: Made) -> None:
    """BM25 order; no distance; filters apply; what does not match is not there."""
    db, _, texts = made
    hits = db.query(text="candle desert", k=200)
    assert {hit.id for hit in hits} == {i for i, text in enumerate(texts) if "candle" in text or "desert" in text}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.distance is None and "vector_score" not in hit for hit in hits)
    assert len(db.query(text="candle", k=3)) == 3
    only = db.query(text="+candle -desert", k=200, where={"group": {"$lt": 5}}, include=("text", "metadata"))
    wanted = {i for i, text in enumerate(texts) if "candle" in text and "desert" not in text and i % 20 < 5}
    assert {hit.id for hit in only} == wanted
    assert all(hit.text == texts[hit.id] for hit in only)
    assert db.query(text="nowhere") == [] and db.query(text="") == [] and db.query(text='":(') == []
    json.dumps(hits)


def test_text_sees_every_write(made: Made) -> None:
    """A text that was written is found at once, one that was replaced or deleted never again."""
    db, vectors, _ = made
    assert db.query(text="zebra") == []
    db.upsert(3, text="zebra crossing")
    new = db.add(vectors[0], text="a zebra")
    assert {hit.id for hit in db.query(text="zebra")} == {3, new}
    db.upsert(3, metadata={"only": "metadata"})
    assert {hit.id for hit in db.query(text="zebra", where={"only": "metadata"})} == {3}
    db.delete(new)
    db.upsert(3, text="horse")
    assert db.query(text="zebra") == []
    db.close()


def test_reciprocal_ranks(made: Made, rng: np.random.Generator) -> None:
    """Each hit's score is the sum of 1 / (60 + rank) over the sides that rank it; distances are exact on both sides."""
    db, vectors, _ = made
    query = rng.standard_normal(DIM)
    hits = db.query(query, text="engine forest", k=20)
    similarity = cosine(vectors, query)
    by_text = [hit.id for hit in db.query(text="engine forest", k=200)]
    by_vector = [hit.id for hit in db.query(query, k=200)]
    for hit in hits:
        ranks = [rank for rank in (hit.vector_rank, hit.text_rank) if rank is not None]
        assert ranks and hit.score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
        assert hit.distance == pytest.approx(1 - similarity[hit.id]) and hit.vector_score == pytest.approx(
            similarity[hit.id]
        )
        assert hit.vector_rank is None or by_vector[hit.vector_rank - 1] == hit.id
        assert hit.text_rank is None or by_text[hit.text_rank - 1] == hit.id
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_weighted(made: Made, rng: np.random.Generator) -> None:
    """alpha=1 ranks as the vector does, alpha=0 as the text does."""
    db, vectors, _ = made
    query = rng.standard_normal(DIM)
    one = db.query(query, text="engine forest", k=10, fusion="weighted", alpha=1)
    assert [hit.id for hit in one] == [hit.id for hit in db.query(query, k=10)]
    zero = db.query(query, text="engine forest", k=10, fusion="weighted", alpha=0)
    text_scores = [hit.text_score for hit in zero]
    assert None not in text_scores
    assert text_scores == sorted(text_scores, reverse=True)
    mixed = db.query(query, text="engine forest", k=10, fusion="weighted", alpha=0.3)
    top = max(cosine(vectors, query))
    best = db.query(text="engine forest", k=1)[0].score
    for hit in mixed:
        near = (hit.vector_score + 1) / (top + 1)
        assert hit.score == pytest.approx(0.3 * near + 0.7 * (hit.text_score or 0) / best, abs=1e-6)


def test_max_distance_holds_on_both_sides(made: Made, rng: np.random.Generator) -> None:
    """What only the text found is left out too if it is too far."""
    db, _, _ = made
    query = rng.standard_normal(DIM)
    for options in ({}, {"fusion": "weighted", "alpha": 0.1}):
        hits = db.query(query, text="engine", k=200, max_distance=0.8, **options)
        assert hits and all(hit.distance <= 0.8 for hit in hits)
    assert db.query(query, k=200, max_distance=-1) == []


def test_examples(made: Made) -> None:
    """The question is the mean of unit vectors, moved away from the others; examples are no answers."""
    db, vectors, _ = made
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1)[:, None]
    hits = db.query(like=[5], k=10)
    assert [hit.id for hit in hits] == [hit.id for hit in db.query(vectors[5], k=11)[1:]]
    question = 2 * unit[[1, 2]].mean(axis=0) - unit[[3]].mean(axis=0)
    want = [i for i in np.argsort(-cosine(vectors, question)) if i not in (1, 2, 3)][:10]
    assert [hit.id for hit in db.query(like=[1, 2], unlike=[3], k=10)] == want
    assert all(hit.id not in (1, 2) for hit in db.query(like=[1, 2], text="engine", k=200))
    assert all(hit.metadata["kind"] == "a" for hit in db.query(like=[1], where={"kind": "a"}, k=200))
    with pytest.raises(RecordNotFoundError, match="999"):
        db.query(like=[999])
    db.add(-vectors[5], id=1000)
    with pytest.raises(InvalidInputError, match="cancel"):
        db.query(like=[5, 1000])


def test_diversity(made: Made, rng: np.random.Generator) -> None:
    """Maximal marginal relevance, step by step; 0 changes nothing."""
    db, vectors, _ = made
    query = rng.standard_normal(DIM)
    assert [h.id for h in db.query(query, k=10, diversity=0)] == [h.id for h in db.query(query, k=10)]
    pool = [hit.id for hit in db.query(query, k=50)]
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1)[:, None]
    relevance = cosine(vectors, query)
    chosen: list[int] = []
    while len(chosen) < 10:
        value = {
            i: 0.4 * relevance[i] - 0.6 * max((float(unit[i] @ unit[j]) for j in chosen), default=0)
            for i in pool
            if i not in chosen
        }
        chosen.append(max(value, key=lambda i: value[i]))
    assert [hit.id for hit in db.query(query, k=10, diversity=0.6)] == chosen
    assert len({hit.id for hit in db.query(text="engine", k=5, diversity=0.5)}) == 5


def test_groups(made: Made, rng: np.random.Generator) -> None:
    """The k groups with the best hits, each with its own best ones, complete even if those are far behind."""
    db, vectors, _ = made
    query = rng.standard_normal(DIM)
    order = np.argsort(-cosine(vectors, query))
    groups = db.query(query, k=3, group_by="group", group_size=4)
    want = list(dict.fromkeys(int(i) % 20 for i in order))[:3]
    assert [group.key for group in groups] == want and all(isinstance(group, Group) for group in groups)
    for group in groups:
        assert [hit.id for hit in group.hits] == [int(i) for i in order if i % 20 == group.key][:4]
    assert len(db.query(query, k=50, group_by="group")) == 20
    assert [g.key for g in db.query(query, k=5, group_by="kind", where={"kind": "a"})] == ["a"]
    assert [g.key for g in db.query(query, k=5, group_by="nothing")] == [None]
    assert {g.key for g in db.query(text="engine", k=30, group_by="group")} <= set(range(20))


@pytest.mark.engines("embedded", "postgres")
def test_groups_far_behind_are_filled(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second member of the best group is the last of all records: it is found all the same."""
    from nopokedb import ranking

    monkeypatch.setattr(ranking, "_GROUP_LENGTH", 8)
    db = open_db(dim=2, space="l2")
    db.add_many(
        np.arange(2_000)[:, None] * [1.0, 0.0], [{"g": ["x", i] if i in (0, 1_999) else i} for i in range(2_000)]
    )
    groups = db.query([0, 0], k=1, group_by="g", group_size=2)
    assert groups[0].key == "x" and [hit.id for hit in groups[0].hits] == [0, 1_999]


def test_highlight(made: Made) -> None:
    """Matches are marked, everything else is escaped."""
    db, vectors, _ = made
    db.upsert(0, text="<script>alert(1)</script> a zebra & more")
    hit = db.query(text="zebra", highlight=True)[0]
    assert hit.highlight == "&lt;script&gt;alert(1)&lt;/script&gt; a <b>zebra</b> &amp; more"
    both = db.query(vectors[0], text="zebra", highlight=True, k=2)
    assert both[0].highlight and "<b>" in both[0].highlight


def test_ties_are_broken_by_id(open_db: Callable[..., NoPokeDB]) -> None:
    """Equal records come in id order whatever asks for them, so answers repeat."""
    db = open_db(dim=2)
    ids: list[Any] = ["b", 5, "a", -1, "é", 2]
    db.add_many([[1, 1]] * 6, ids=ids, texts=["same words"] * 6)
    want = [-1, 2, 5, "a", "b", "é"]
    assert [hit.id for hit in db.query([1, 0], k=6)] == want
    assert [hit.id for hit in db.query(text="words", k=6)] == want
    assert [hit.id for hit in db.query([1, 0], text="words", k=6, fusion="weighted")] == want


def test_many_with_texts(made: Made, rng: np.random.Generator) -> None:
    """One text for all questions, or one for each."""
    db, _, _ = made
    queries = rng.standard_normal((3, DIM))
    texts = ["engine", "forest", "apple desert"]
    assert db.query_many(queries, text=texts) == [
        db.query(query, text=text) for query, text in zip(queries, texts, strict=True)
    ]
    assert db.query_many(queries, text="engine")[2] == db.query(queries[2], text="engine")
    with pytest.raises(InvalidInputError, match="3"):
        db.query_many(queries, text=["one", "two"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"vector": [1] * DIM, "like": [1]},
        {"unlike": [1]},
        {"vector": [1] * DIM, "unlike": [1]},
        {"like": []},
        {"like": [1], "unlike": [1]},
        {"like": 5},
        {"text": "a", "fusion": "weighted"},
        {"vector": [1] * DIM, "fusion": "weighted"},
        {"vector": [1] * DIM, "text": "a", "fusion": "best"},
        {"vector": [1] * DIM, "text": "a", "alpha": 0.7},
        {"vector": [1] * DIM, "text": "a", "fusion": "weighted", "alpha": 1.5},
        {"vector": [1] * DIM, "text": "a", "fusion": "weighted", "alpha": float("nan")},
        {"vector": [1] * DIM, "diversity": 2},
        {"vector": [1] * DIM, "diversity": True},
        {"vector": [1] * DIM, "group_size": 2},
        {"vector": [1] * DIM, "group_by": "g", "group_size": 0},
        {"vector": [1] * DIM, "group_by": "g", "diversity": 0.5},
        {"vector": [1] * DIM, "group_by": 5},
        {"vector": [1] * DIM, "highlight": True},
        {"text": "a", "highlight": 1},
        {"text": "a", "max_distance": 1},
        {"text": "a", "ef": 10},
        {"text": 5},
        {"text": "\ud800"},
        {"text": "x" * 100_000},
        {"vector": "words"},
        {"vector": [1] * DIM, "where": 5},
    ],
)
def test_what_has_no_meaning_is_refused(made: Made, options: dict[str, Any]) -> None:
    """Arguments that do not go together are an error in words, never ignored."""
    with pytest.raises(InvalidInputError, match="expected"):
        made[0].query(**options)


@pytest.mark.engines("embedded")
def test_texts_after_reopening_and_for_readers(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """The text index comes back after a close, is built anew where it was deleted, and readers have their own."""
    import shutil
    from pathlib import Path

    db = open_db(dim=2)
    db.add_many(rng.random((50, 2)), texts=[f"number {i}" for i in range(50)])
    assert [hit.id for hit in db.query(text="+7")] == [7]
    db.close()
    reader = open_db(read_only=True)
    assert [hit.id for hit in reader.query(text="+8")] == [8]
    writer = open_db()
    writer.upsert(8, text="changed")
    assert [hit.id for hit in writer.query(text="+changed")] == [8]
    reader.refresh()
    assert [hit.id for hit in reader.query(text="+changed")] == [8]
    reader.close()
    writer.close()
    assert (Path(writer.path) / "text").is_dir()
    shutil.rmtree(Path(writer.path) / "text")
    again = open_db()
    assert [hit.id for hit in again.query(text="+changed")] == [8]
    assert not again.stats().notes


def test_languages(open_db: Callable[..., NoPokeDB]) -> None:
    """The language is decided at creation, kept, and a different one at open is refused."""
    db = open_db(dim=2, text_language="de")
    db.add([1, 1], text="Die Häuser stehen am Fluss")
    assert db.query(text="Haus") and not db.query(text="die")
    db.close()
    db = open_db()
    assert db.query(text="Haus")
    db.close()
    with pytest.raises(InvalidInputError, match=r"'de'.*'fr'"):
        open_db(text_language="fr")
    with pytest.raises(InvalidInputError, match="text_language"):
        open_db(dim=2, text_language="xx")

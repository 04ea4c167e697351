"""Looking at a whole collection: duplicates and outliers against brute force, projections, plots, forecasts."""

from __future__ import annotations

import asyncio
import json
import re
import struct
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nopokedb import AsyncNoPokeDB, InvalidInputError, NoPokeDB, NotSupportedError, Outlier, forecast
from nopokedb.distances import final_order, scores_and_distances
from nopokedb.errors import InvalidFilterError
from nopokedb.insight import duplicates, outliers, pairs, projection
from nopokedb.insight import forecast as forecasting
from nopokedb.insight.colouring import HUES, OTHER, coloured
from nopokedb.records import Id, id_order

Open = Callable[..., NoPokeDB]
SPACES = ("cosine", "l2", "ip")
HOSTILE = "</script><img src=x onerror=alert(1)>$\\frac{"


def distances(space: str, vectors: Any) -> Any:
    """All distances, shape (n, n)."""
    stored = np.asarray(vectors, np.float32)
    return np.array([scores_and_distances(space, final_order(space, row, stored).tolist())[1] for row in stored])


def brute_groups(space: str, ids: list[Id], vectors: Any, threshold: float) -> list[list[Id]]:
    """Connected groups by walking from record to record."""
    near = distances(space, vectors) <= threshold
    stored = np.asarray(vectors, np.float32)
    if space != "ip":
        near |= (stored[:, None] == stored[None]).all(axis=2)
    near |= near.T
    seen: set[int] = set()
    groups = []
    for start in range(len(ids)):
        if start in seen:
            continue
        group, ahead = {start}, [start]
        while ahead:
            new = set(np.flatnonzero(near[ahead.pop()]).tolist()) - group
            group |= new
            ahead += new
        seen |= group
        if len(group) > 1:
            groups.append(sorted((ids[at] for at in group), key=id_order))
    return sorted(groups, key=lambda group: (-len(group), id_order(group[0])))


def brute_outliers(space: str, ids: list[Id], vectors: Any, count: int, k: int) -> list[Outlier]:
    all_distances = distances(space, vectors)
    found = []
    for at, id_ in enumerate(ids):
        others = np.sort(np.delete(all_distances[at], at))[:k]
        if len(others):
            found.append(Outlier(id_, float(others.mean())))
    return sorted(found, key=lambda item: (-item.distance, id_order(item.id)))[:count]


def mixed_ids(count: int) -> list[Id]:
    """In id order."""
    return [*range(-3, count // 2 - 3), *(f"s{n:05d}" for n in range(count - count // 2))]


def crowds(rng: np.random.Generator, count: int, dim: int) -> Any:
    """Whole numbers, so that distances under l2 and ip are exact: many copies, many neighbours, some far away."""
    centres = rng.integers(-20, 20, (max(1, count // 8), dim))
    vectors = centres[rng.integers(0, len(centres), count)] + rng.integers(-1, 2, (count, dim))
    vectors[~vectors.any(axis=1), 0] = 1
    return vectors.astype(np.float32)


# --- duplicates ---------------------------------------------------------------------------------------------


@pytest.mark.engines
@pytest.mark.parametrize("space", SPACES)
def test_duplicates_are_those_of_brute_force(open_db: Open, rng: np.random.Generator, space: str) -> None:
    """At thresholds that are some pair's own distance, to the last bit where sums are exact; with a filter, too."""
    db = open_db(dim=5, space=space)
    vectors, ids = crowds(rng, 100, 5), mixed_ids(100)
    db.add_many(vectors, [{"even": n % 2 == 0} for n in range(100)], ids=ids)
    every = np.unique(distances(space, vectors))
    for share in (0.0, 0.01, 0.1):
        threshold = float(every[int(share * (len(every) - 1))])
        if space == "cosine":
            threshold += 1e-12  # the last bits of a cosine depend on the order of both
        elif space == "l2":
            threshold = max(threshold, 0.0)
        expected = brute_groups(space, ids, vectors, threshold)
        assert db.duplicates(threshold) == expected
        assert db.duplicates(threshold, limit=2) == expected[:2]
        assert db.duplicates(threshold, where={"even": True}) == brute_groups(space, ids[::2], vectors[::2], threshold)
        assert db.duplicates(threshold, target_recall=0.99) == expected  # so few are compared exactly


@pytest.mark.parametrize(("space", "recall"), [*((space, 1.0) for space in SPACES), ("cosine", 0.99), ("ip", 0.99)])
def test_copies_by_the_thousand(open_db: Open, rng: np.random.Generator, space: str, recall: float) -> None:
    """Lists that are full are no end: one group of 2,000 copies; one of two crowds of 150, near each other, whose
    records have only their own crowd as nearest neighbours; and pairs."""
    db = open_db(dim=16, space=space)
    base = rng.standard_normal((300, 16))
    base /= np.linalg.norm(base, axis=1)[:, None]
    if space == "ip":
        base *= 2  # near itself: 1 - 4
    aside = rng.standard_normal(16)
    crowd = base[1] + np.repeat([[0.0], [2.5e-3]], 150, axis=0) * aside / np.linalg.norm(aside)
    near = crowd + 1e-5 * rng.standard_normal((300, 16))
    db.add_many(np.concatenate([np.repeat(base[:1], 2000, axis=0), near, base[2:102], base[2:102], base[102:]]))
    threshold = -2.99 if space == "ip" else 1e-5
    found = db.duplicates(threshold, target_recall=recall)
    assert [len(group) for group in found] == [2000, 300, *[2] * 100]
    assert found[0] == list(range(2000)) and found[1] == list(range(2000, 2300))
    assert found[2] == [2300, 2400]


def test_a_chain_is_one_group_over_all_blocks(open_db: Open, rng: np.random.Generator, monkeypatch: Any) -> None:
    """Neighbours on a line, in any order, in blocks and chunks of a few records."""
    monkeypatch.setattr(duplicates, "_CHUNK_BYTES", 8 * 2 * 50)
    monkeypatch.setattr(duplicates, "_BLOCK_RECORDS", 17)
    monkeypatch.setattr(pairs, "_ROWS", 8)
    monkeypatch.setattr(pairs, "_COLUMNS", 16)
    monkeypatch.setattr(pairs, "_DECIDED", 4)
    db = open_db(dim=2, space="l2")
    places = rng.permutation(300)
    db.add_many(np.stack([1e6 + places, np.zeros(300)], axis=1))  # far from the origin
    assert db.duplicates(1.0) == [list(range(300))]
    assert db.duplicates(0.5) == []
    assert db.duplicates(1.0, where={"$id": {"$lt": 150}}) == brute_groups(
        "l2", list(range(150)), np.stack([1e6 + places[:150], np.zeros(150)], axis=1), 1.0
    )


def test_zero_vectors_and_tiny_and_huge_ones(open_db: Open) -> None:
    """Zero vectors are duplicates under l2; products that vanish or overflow in float32 are decided in float64."""
    vectors = np.zeros((8, 3), np.float32)
    vectors[2, 0], vectors[3, 0] = 1e-25, 2e-25
    vectors[4, 0], vectors[5, 0] = 1.7e18, -1.7e18
    vectors[6, 0] = vectors[7, 0] = 1.7e18
    db = open_db(dim=3, space="l2")
    db.add_many(vectors)
    assert db.duplicates(0) == [[4, 6, 7], [0, 1]]
    assert db.duplicates(1e-49) == brute_groups("l2", list(range(8)), vectors, 1e-49)
    with NoPokeDB(dim=3, space="ip", path=Path(db.path).parent / "ip") as products:
        products.add_many(vectors)
        for threshold in (1.0, -1e30, 1e30):
            assert products.duplicates(threshold) == brute_groups("ip", list(range(8)), vectors, threshold)


@pytest.mark.engines
def test_nothing_and_one_record(open_db: Open) -> None:
    db = open_db(dim=3, space="l2")
    for _ in range(2):
        assert db.duplicates(1e9) == db.duplicates(1e9, target_recall=0.9) == []
        assert db.outliers() == []
        found = db.project()
        assert found.coordinates.shape == (len(db), 2) and not found.coordinates.any()
        assert not found.explained_variance.any()
        db.upsert(0, [1, 2, 3])


# --- outliers -----------------------------------------------------------------------------------------------


@pytest.mark.engines
@pytest.mark.parametrize("space", SPACES)
def test_outliers_are_those_of_brute_force(open_db: Open, rng: np.random.Generator, space: str) -> None:
    """The same records with the same means, ties in id order, also with fewer others than k."""
    db = open_db(dim=5, space=space)
    vectors, ids = crowds(rng, 80, 5), mixed_ids(80)
    db.add_many(vectors, [{"even": n % 2 == 0} for n in range(80)], ids=ids)

    def same(found: list[Outlier], expected: list[Outlier]) -> bool:
        assert [item.distance for item in found] == pytest.approx([item.distance for item in expected], abs=1e-12)
        return space == "cosine" or [item.id for item in found] == [item.id for item in expected]

    for count, k in ((10, 10), (1, 1), (500, 3), (7, 200)):
        assert same(db.outliers(count, k=k), brute_outliers(space, ids, vectors, count, k))
    expected = brute_outliers(space, ids[::2], vectors[::2], 5, 4)
    assert same(db.outliers(5, k=4, where={"even": True}), expected)


def test_outliers_are_exact_above_an_index(
    open_db: Open, rng: np.random.Generator, quick_sealing: None, monkeypatch: Any
) -> None:
    """Bounds by an index that misses much, as its lists are no longer than k, rule out nobody wrongly."""
    monkeypatch.setattr(outliers, "_CHECKED", 8)
    db = open_db(dim=24, space="l2", ef=6)
    vectors = rng.standard_normal((2000, 24)) * rng.uniform(0.9, 1.1, (2000, 1))
    db.add_many(vectors)
    db.optimize()
    found, expected = db.outliers(8, k=5), brute_outliers("l2", list(range(2000)), vectors, 8, 5)
    assert [item.id for item in found] == [item.id for item in expected]
    assert [item.distance for item in found] == pytest.approx([item.distance for item in expected])


# --- projection ---------------------------------------------------------------------------------------------


@pytest.mark.engines
@pytest.mark.parametrize("space", SPACES)
def test_a_projection_is_that_of_the_singular_values(open_db: Open, rng: np.random.Generator, space: str) -> None:
    """Coordinates, axes and shares, with signs that depend on nothing but the records."""
    vectors = (rng.standard_normal((90, 6)) * [9, 5, 3, 1, 1, 1] + 20).astype(np.float32)
    db = open_db(dim=6, space=space)
    db.add_many(vectors, ids=mixed_ids(90))
    rows = vectors.astype(np.float64)
    if space == "cosine":
        rows /= np.linalg.norm(rows, axis=1)[:, None]
    _, values, axes = np.linalg.svd(rows - rows.mean(axis=0))
    found = db.project(3)
    assert found.ids == mixed_ids(90)
    assert found.coordinates.dtype == np.float32 and found.coordinates.shape == (90, 3)
    assert found.explained_variance == pytest.approx((values**2 / (values**2).sum())[:3], rel=1e-4)
    assert np.abs(found.axes) == pytest.approx(np.abs(axes[:3]), abs=1e-3)
    assert all(axis[np.argmax(np.abs(axis))] > 0 for axis in found.axes)
    assert found.coordinates == pytest.approx((rows - found.mean) @ found.axes.T, abs=1e-3)
    again = db.project(3)
    assert np.array_equal(again.coordinates, found.coordinates)
    some = db.project(2, sample=20)
    assert some.ids == db.project(2, sample=20).ids and len(some.ids) == 20
    assert [id_order(id_) for id_ in some.ids] == sorted(id_order(id_) for id_ in some.ids)
    assert len(db.project(2, where={"$id": {"$gte": 0}}).ids) == 42


def test_a_projection_of_wide_vectors(open_db: Open, rng: np.random.Generator, monkeypatch: Any) -> None:
    """Beyond the largest matrix of covariances the axes come from the records' own products: the same ones."""
    db = open_db(dim=40, space="l2")
    db.add_many(rng.standard_normal((30, 40)) * np.linspace(9, 1, 40))
    full = db.project(3)
    monkeypatch.setattr(projection, "MAX_COVARIANCE_DIM", 8)
    wide = db.project(3)
    assert wide.coordinates == pytest.approx(full.coordinates, abs=1e-3)
    assert wide.explained_variance == pytest.approx(full.explained_variance, rel=1e-6)
    monkeypatch.setattr(projection, "_SAMPLE", 20)
    assert db.project(3).coordinates.shape == (30, 3)


# --- plots --------------------------------------------------------------------------------------------------


class Outside(HTMLParser):
    """Tags, and whatever could ask somebody for something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.asks: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asks += [item for item in attrs if item[0] in ("src", "href", "data", "action", "onerror", "onload")]


def filled(db: NoPokeDB) -> NoPokeDB:
    rng = np.random.default_rng(0)
    kinds = ["sea", HOSTILE, "_wood", "$\\frac{$"]
    db.add_many(
        rng.standard_normal((60, 4)) + 8 * np.eye(3, 4)[np.arange(60) % 3],
        [{"kind": kinds[n % 4], "n": n, HOSTILE: [n]} for n in range(60)],
        texts=[HOSTILE] * 60,
    )
    return db


@pytest.mark.engines
def test_a_page_holds_what_is_stored_as_text_and_asks_nobody(open_db: Open, tmp_path: Path) -> None:
    """No tag and no address but the page's own; its data are there, with colours and the beginning of metadata."""
    db = filled(open_db(dim=4))
    target = tmp_path / "map.html"
    found = db.plot(target, color="kind", sample=50)
    page = target.read_text()
    parser = Outside()
    parser.feed(page)
    assert parser.asks == [] and "img" not in parser.tags and parser.tags.count("script") == 2
    assert "http:" not in page and "https:" not in page and "default-src 'none'" in page
    encoded = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert encoded
    data = json.loads(encoded[1])
    assert len(data["points"]) == len(data["colours"]) == len(data["about"]) == len(found.ids) == 50
    assert np.array(data["points"]) == pytest.approx(found.coordinates, abs=1e-5)
    assert data["about"][0][0] == repr(found.ids[0])
    assert [HOSTILE, f"[{found.ids[0]}]"] in data["about"][0][1] and data["about"][0][2] == HOSTILE
    assert len(data["legend"]) == 4 and not list(tmp_path.glob("*.partial"))


def test_a_page_works_in_a_browser(open_db: Open, tmp_path: Path) -> None:
    """It draws, hovering shows a record's metadata as text, and nothing goes wrong."""
    from chromium import Browser, find_chromium

    program = find_chromium()
    if program is None:
        pytest.skip("chromium is not installed (make system-deps installs it)")
    filled(open_db(dim=4)).plot(tmp_path / "map.html", color="kind")
    with Browser(program) as browser:
        page = browser.page((tmp_path / "map.html").as_uri())
        page.wait("document.querySelector('canvas')?.width > 100")
        page.run("(([x, y]) => canvas.onpointermove({ offsetX: x, offsetY: y }))(place(data.points[7]))")
        assert page.run("tip.style.visibility") == "visible"
        shown = page.run("tip.textContent")
        assert HOSTILE in shown and page.run("document.querySelectorAll('img').length") == 0
        assert page.problems == []
        assert all(url.startswith("file:") for url in page.requested)


def test_a_picture(open_db: Open, tmp_path: Path) -> None:
    """A PNG of a stated size; stored dollar signs are no formulas; what was there is replaced."""
    pytest.importorskip("matplotlib", reason="pictures need the extra plot")
    db = filled(open_db(dim=4))
    (tmp_path / "map.png").write_bytes(b"old")
    db.plot(tmp_path / "map.png", color="kind")
    data = (tmp_path / "map.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", data[16:24]) == (1350, 1050)
    with NoPokeDB(dim=1, space="l2", path=tmp_path / "one") as one:
        one.add_many([[1.0], [2.0]], [{"n": 1}, {}])
        one.plot(tmp_path / "one.PNG", color="n")
    assert not list(tmp_path.glob("*.partial"))


def test_a_missing_extra_is_named_before_anything_is_read(open_db: Open, tmp_path: Path, monkeypatch: Any) -> None:
    db = filled(open_db(dim=4))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=re.escape('".[plot]"')):
        db.plot(tmp_path / "map.png")
    assert not (tmp_path / "map.png").exists()


def test_colours_are_by_value_or_by_size() -> None:
    """Few values have a colour each, the most frequent first; many numbers lie on a scale; the rest is grey."""
    found = coloured([{"a": 1}, {"a": 2}, {"a": 2}, {}, {"a": None}, {"a": ["x", "y"]}], ("a",))
    assert found.colours == [HUES[2], HUES[0], HUES[0], OTHER, OTHER, HUES[1]]
    assert found.legend == [(HUES[0], "2 (2)"), (HUES[1], "x (1)"), (HUES[2], "1 (1)"), (OTHER, "others")]
    scale = coloured([*({"a": n} for n in range(20)), {"a": "x"}, {"a": True}], ("a",))
    assert len(set(scale.colours)) == 21 and scale.colours[-2:] == [OTHER, OTHER]
    assert [words for _, words in scale.legend] == ["0", "19"]
    assert coloured([{}], None).colours == [HUES[0]]


# --- arguments ----------------------------------------------------------------------------------------------


@pytest.mark.engines
@pytest.mark.parametrize(
    "call",
    [
        lambda db, _: db.duplicates(-0.1),
        lambda db, _: db.duplicates(float("nan")),
        lambda db, _: db.duplicates(float("inf")),
        lambda db, _: db.duplicates(10**400),
        lambda db, _: db.duplicates(True),
        lambda db, _: db.duplicates("0.1"),
        lambda db, _: db.duplicates(None),
        lambda db, _: db.duplicates(0.1, limit=0),
        lambda db, _: db.duplicates(0.1, target_recall=0),
        lambda db, _: db.duplicates(0.1, target_recall=1.5),
        lambda db, _: db.duplicates(0.1, where={"$no": 1}),
        lambda db, _: db.outliers(0),
        lambda db, _: db.outliers(k=0),
        lambda db, _: db.outliers(k=10_000),
        lambda db, _: db.outliers(k=1.5),
        lambda db, _: db.outliers(where="x"),
        lambda db, _: db.project(0),
        lambda db, _: db.project(5),
        lambda db, _: db.project(True),
        lambda db, _: db.project(sample=0),
        lambda db, _: db.project(where={"$no": 1}),
        lambda db, place: db.plot(place / "map.svg"),
        lambda db, place: db.plot(place / "map"),
        lambda db, _: db.plot(7),
        lambda db, _: db.plot("a\0.html"),
        lambda db, place: db.plot(place / "map.html", color="$id"),
        lambda db, place: db.plot(place / "map.html", color=7),
        lambda db, place: db.plot(place / "map.html", sample=0),
        lambda db, place: db.plot(place / "map.html", sample=10**6),
        lambda db, place: db.plot(place / "map.html", where={"$no": 1}),
    ],
)
def test_bad_arguments_are_refused(open_db: Open, tmp_path: Path, call: Callable[[NoPokeDB, Path], object]) -> None:
    """Before anything is read or written, with what was expected."""
    db = open_db(dim=4)
    db.add([1, 0, 0, 0])
    with pytest.raises((InvalidInputError, InvalidFilterError), match="expected"):
        call(db, tmp_path / "plots")
    assert not (tmp_path / "plots").exists()


@pytest.mark.engines(without=("postgres",))
def test_a_snapshot_and_the_awaitable_class_have_them_too(engine: dict[str, Any], tmp_path: Path) -> None:
    with NoPokeDB(dim=2, space="l2", **engine) as db:
        db.add_many([[0, 0], [0, 0], [5, 5]])
        db.snapshot("before")
        db.delete(0)
        view = db.at("before")
        assert view.duplicates(0) == [[0, 1]] and db.duplicates(0) == []
        assert view.outliers(1, k=1) == [Outlier(2, 50.0)] and len(view.project().ids) == 3

    async def ask() -> None:
        async with AsyncNoPokeDB(**engine) as db:
            assert await db.duplicates(100.0) == [[1, 2]]
            assert [item.id for item in await db.outliers(1)] == [1]
            assert (await db.project(1)).ids == [1, 2]
            assert (await db.plot(tmp_path / "map.html")).ids == [1, 2]

    asyncio.run(ask())


# --- forecast -----------------------------------------------------------------------------------------------


def record_arrays(rng: np.random.Generator, count: int) -> tuple[Any, list[dict[str, Any]], list[str]]:
    metadatas = [{"title": f"title number {n}", "year": 1900 + n % 120, "tags": ["a", "b"]} for n in range(count)]
    return rng.standard_normal((count, 32)), metadatas, [f"some words of text {n} " * 4 for n in range(count)]


@pytest.mark.parametrize("start", [600, 9000])
def test_a_forecast_is_near_what_comes(open_db: Open, rng: np.random.Generator, tmp_path: Path, start: int) -> None:
    """From a small collection: what it holds on disk and in memory when it has grown is within 1.3 times the range."""
    vectors, metadatas, texts = record_arrays(rng, 24_000)
    db = open_db(dim=32, indexed_fields=["year"])
    db.add_many(vectors[:start], metadatas[:start], texts=texts[:start])
    db.save()
    found = forecast(db.path, 24_000)
    assert (found.count, found.trial_count) == (24_000, 8192)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db"]  # nothing of the trial is left
    db.add_many(vectors[start:], metadatas[start:], texts=texts[start:])
    db.optimize()
    db.save()
    stats = db.stats()
    for name, true in (
        ("disk_bytes", stats.disk_bytes - stats.log_bytes),
        ("memory_bytes", stats.index_memory_bytes + stats.tables_memory_bytes),
    ):
        estimate = getattr(found, name)
        print(name, estimate, true)
        assert estimate.low / 1.3 <= true <= estimate.high * 1.3, name
        assert estimate.high <= 2.5 * estimate.low and estimate.basis
    assert 0 < found.ingest_s.low <= found.ingest_s.high and 0 < found.sealing_s.low <= found.sealing_s.high
    assert found.graph_s.high == 0  # of so few records none is built
    assert "disk" in str(found) and "8192" in str(found)


def test_a_forecast_counts_graphs_where_they_will_be(
    open_db: Open, rng: np.random.Generator, monkeypatch: Any, quick_sealing: None
) -> None:
    """From 65,536 records on, or as soon as they are asked for; never where they are not."""
    monkeypatch.setattr(forecasting, "_TRIAL_RECORDS", 2048)
    db = open_db(dim=16)
    db.add_many(rng.standard_normal((300, 16)))
    found = forecast(db.path, 1_000_000)
    assert found.graph_s.high > found.graph_s.low > 0 and "graph" in found.memory_bytes.basis
    assert forecasting._wants_graph({"index": "hnsw", "M": 16, "ef_construction": 200}, 1)
    assert forecasting._wants_graph({"index": "auto", "M": 8, "ef_construction": 200}, 1)
    assert not forecasting._wants_graph({"index": "scan", "M": 16, "ef_construction": 200}, 10**8)


def test_what_cannot_be_forecast_is_refused(open_db: Open) -> None:
    db = open_db(dim=4)
    with pytest.raises(InvalidInputError, match="found none"):
        forecast(db.path, 10)
    for count in (0, -1, 2**32, True, 1.5):
        with pytest.raises(InvalidInputError, match="expected count"):
            forecast(db.path, count)  # type: ignore[arg-type]
    for address in ("postgresql://nobody@nowhere/none#x", "http://127.0.0.1:1/x"):
        with pytest.raises(NotSupportedError):
            forecast(address, 10)

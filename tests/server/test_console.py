"""The console, in a real browser against a real server: it loads, asks, filters, draws, and trusts nothing stored."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from chromium import Browser, Page, find_chromium

from nopokedb import NoPokeDB
from nopokedb.insight.colouring import HUES
from nopokedb.server.rest.console import FOLDER

from .process import ServerProcess

PROGRAM = find_chromium()
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed (make system-deps installs it)")
BIG = 2**63 - 1
HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"
DIM = 6
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three collections: clusters, hostile records with long ids, and texts with a model."""
    folder = tmp_path_factory.mktemp("console") / "collections"
    rng = np.random.default_rng(0)
    with NoPokeDB(DIM, path=folder / "clusters", space="l2") as db:
        which = np.arange(240) % 3
        vectors = np.eye(3, DIM)[which] * 20 + rng.standard_normal((240, DIM))
        db.add_many(vectors, [{"topic": f"t{w}", "n": n} for n, w in enumerate(which.tolist())])
    with NoPokeDB(2, path=folder / "odd & ends".replace(" & ", "-")) as db:
        db.add(
            [1, 0], {HOSTILE: HOSTILE, "n": 9007199254740993}, id=BIG, text=f"{HOSTILE} a <b>bold</b> word &amp; more"
        )
        db.add([1, 0.5], {"s": "x"}, id="1")
        db.add([1, 1], {"i": 1}, id=1)
        db.add([0, 1], {}, id='a,b/c?d#e"<b>ü')
    with NoPokeDB(path=folder / "texts", embed="wordllama") as db:
        texts = ["a kitten sleeps on the sofa", "fast cars and engines", "a recipe for bread"]
        db.add_many(texts=texts, metadatas=[{"kind": kind} for kind in ("animal", "machine", "food")])
    return folder


@pytest.fixture(scope="module")
def server(collections: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(collections)
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM) as found:
        yield found


@pytest.fixture
def visit(browser: Browser, server: ServerProcess) -> Iterator[Open]:
    """Opens a page. In the end: nothing went wrong in any, and nothing was asked of anybody else."""
    pages = []

    def open_(place: str = "", **options: Any) -> Page:
        page = browser.page(f"{server.url}/{place}", **options)
        pages.append(page)
        page.wait("document.querySelector('main')")
        return page

    yield open_
    for page in pages:
        assert page.problems == []
        assert page.requested and all(url.startswith(server.url) for url in page.requested), page.requested
        assert page.run("document.title") == "NoPokeDB"


def focus(page: Page, selector: str) -> None:
    page.wait(f"document.querySelector({json.dumps(selector)})")
    page.run(f"document.querySelector({json.dumps(selector)}).focus()")


def ids(page: Page) -> list[str]:
    return page.run("[...document.querySelectorAll('[data-row] .id')].map((e) => e.textContent)")  # type: ignore[no-any-return]


# --- without a browser --------------------------------------------------------------------------------------------


def test_files_and_their_policy(shared: ServerProcess) -> None:
    """Each file under its own name, with a policy that allows nothing but itself; no other path is a file."""
    for file in FOLDER.rglob("*"):
        if file.suffix in (".html", ".js", ".css", ".svg"):
            name = file.relative_to(FOLDER).as_posix()
            answer = shared.bare.get("/" if name == "index.html" else f"/console/{name}")
            assert answer.status_code == 200 and answer.content == file.read_bytes(), name
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("vendor/README.md", "../settings.py", "%2e%2e/settings.py", "vendor/../../settings.py", "", "x.js"):
        answer = httpx.get(f"{shared.url}/console/{path}")
        assert answer.status_code in (404, 401) and b"dataclass" not in answer.content, path


def test_no_inline_code_and_no_other_hosts() -> None:
    """What the policy would refuse is not there; addresses of others stand only in comments and namespaces."""
    page = (FOLDER / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|javascript:", page)
    for file in FOLDER.glob("*.js"):
        text = file.read_text()
        for wrong in (
            "innerHTML",
            "dangerouslySetInnerHTML",
            "eval(",
            "document.write",
            "JSON.parse",
            "http://",
            "https://",
        ):
            assert wrong not in text, f"{file.name}: {wrong}"


def test_libraries_are_what_npm_has() -> None:
    """The table of the vendored libraries has every file with its hash, and each has its licence."""
    folder = FOLDER / "vendor"
    rows = dict(
        re.findall(r"^\| (\S+\.(?:js|css)) \|.*\| ([0-9a-f]{64}) \|$", (folder / "README.md").read_text(), re.M)
    )
    files = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.suffix in (".js", ".css")
    }
    assert files == rows
    for name in files:
        assert (folder / f"{name.partition('.')[0]}.LICENSE").exists(), name


def test_records_by_chance(server: ServerProcess) -> None:
    """What the map is made of: so many, each once, within a filter, with vectors; limits hold."""
    found = server.call("POST", "/clusters/sample", {"size": 50, "include": ["metadata", "vector"]})["records"]
    assert len({record["id"] for record in found}) == 50 and len(found[0]["vector"]) == DIM
    again = server.call("POST", "/clusters/sample", {"size": 50})["records"]
    assert [record["id"] for record in found] != [record["id"] for record in again]
    some = server.call("POST", "/clusters/sample", {"size": 500, "where": {"topic": "t1"}})["records"]
    assert len(some) == 80 and {record["metadata"]["topic"] for record in some} == {"t1"}
    for wrong in ({"size": 0}, {"size": 10**6}, {"where": {"$x": 1}}, {"nope": 1}):
        assert server.request("POST", "/clusters/sample", wrong).status_code in (400, 422), wrong


# --- in a browser -------------------------------------------------------------------------------------------------


@needs_chromium
def test_collections_are_shown(visit: Open) -> None:
    """Sizes, segments, health; a link leads to the records."""
    page = visit()
    page.wait("document.querySelectorAll('.card .big').length === 3")
    for words in ("clusters", "240", "6 dimensions", "l2", "sound", "on disk", "ready"):
        page.wait_text(words)
    page.click("[...document.querySelectorAll('.card h2 a')].find((e) => e.textContent === 'clusters')")
    page.wait("document.querySelectorAll('[data-row]').length === 50")
    page.click(page.button("More"))
    page.wait("document.querySelectorAll('[data-row]').length === 100")


@needs_chromium
def test_filters(visit: Open) -> None:
    """Built of conditions or written; wrong ones are explained; the order of a field."""
    page = visit("#/c/clusters/records")
    page.click(page.button("Condition"))
    focus(page, "[aria-label=Field]")
    page.write("topic")
    focus(page, "[aria-label=Value]")
    page.write("t1")
    page.wait_text("80 records pass the filter")
    page.click(page.button("Condition"))
    page.run("[...document.querySelectorAll('[aria-label=Field]')].at(-1).focus()")
    page.write("n")
    page.run("[...document.querySelectorAll('[aria-label=Value]')].at(-1).focus()")
    page.write("4")
    page.wait_text("1 record passes the filter")
    page.wait("document.querySelectorAll('[data-row]').length === 1")
    assert ids(page) == ["4"]
    page.click(page.button("any"))
    page.wait_text("80 records pass the filter")
    page.click(page.button("JSON"))
    focus(page, "textarea")
    page.run("document.querySelector('textarea').select()")
    page.write('{"n": {"$gte": 238}}')
    page.wait_text("2 records pass the filter")
    focus(page, "input[list=fields]")
    page.write("-n")
    page.wait("document.querySelector('[data-row] .id')?.textContent === '239'")
    page.run("document.querySelector('textarea').select()")
    page.write('{"n": {"$nope": 1}}')
    page.wait_text("$nope")
    page.problems.clear()  # the browser notes the 422 that was meant


@needs_chromium
def test_what_is_stored_is_text(visit: Open) -> None:
    """Markup in keys, values, texts and ids is shown as it is, everywhere; ints keep all their digits, 1 is not "1"."""
    page = visit("#/c/odd-ends/records")
    page.wait("document.querySelectorAll('[data-row]').length === 4")
    assert ids(page) == ["1", str(BIG), '"1"', json.dumps('a,b/c?d#e"<b>ü', ensure_ascii=False)]
    assert HOSTILE[:20] in page.text() and "9007199254740993" in page.text()
    for row in range(4):
        page.click(f"document.querySelectorAll('[data-row]')[{row}]")
        page.wait("document.querySelector('dialog .json')")
        shown = ids(page)[row]
        assert page.run("document.querySelector('dialog h2').textContent") == shown
        if shown == str(BIG):
            assert json.dumps(HOSTILE) in page.run("document.querySelector('dialog .json').textContent")
        page.click(page.button("Find its neighbours"))
        page.wait("document.querySelectorAll('.hit').length === 3")
        assert shown not in ids(page)
        page.run("history.back()")
        page.wait("document.querySelectorAll('.tr[data-row]').length === 4")
    page = visit("#/c/odd-ends/query")
    focus(page, "[data-first]")
    page.write("bold word")
    page.press("Enter", 13)
    page.wait("document.querySelectorAll('.hit mark').length === 2")
    assert page.run("document.querySelector('.hit .text').textContent") in f"{HOSTILE} a <b>bold</b> word &amp; more"
    assert page.run("document.querySelectorAll('main img, main script').length") == 0
    page.click("document.querySelector('.tabs a[href$=map]')")
    page.wait("document.querySelector('.map canvas')")
    assert page.run("document.querySelectorAll('main img, main script').length") == 0


@needs_chromium
def test_queries_and_their_plan(visit: Open) -> None:
    """By text with a model, by words, by a vector that is pasted; weights; the stages of the plan add up."""
    page = visit("#/c/texts/query")
    focus(page, "[data-first]")
    page.write("feline pet")
    page.press("Enter", 13)
    page.wait("document.querySelectorAll('.hit').length === 3")
    assert ids(page)[0] == "0"
    total = page.run("document.querySelector('.plan header b').textContent")
    stages = page.run("[...document.querySelectorAll('.stage-ms')].map((e) => Number(e.textContent))")
    assert len(stages) > 3 and abs(sum(stages) - float(total.split()[0])) <= 0.1 * sum(stages) + 0.01
    starts = page.run("[...document.querySelectorAll('.stage .bar')].map((e) => parseFloat(e.style.marginLeft))")
    assert starts[0] == 0 and starts == sorted(set(starts))  # one after the other
    page.click(page.button("Scores"))
    page.wait("document.querySelector('input[type=range]')")
    page.click(page.button("Search"))
    page.wait_text("vector 1")
    page.click(page.button("Words"))
    page.click(page.button("Search"))
    page.wait_text("0 hits")
    page = visit("#/c/clusters/query")
    page.click(page.button("Vector"))
    focus(page, "textarea")
    page.write("[0, 20, 0, 0, 0, 0]")
    page.click(page.button("Search"))
    page.wait("document.querySelectorAll('.hit').length === 10")
    assert page.run("[...document.querySelectorAll('.hit .tag:first-child')].every((e) => e.textContent === 'topict1')")
    page.run("document.querySelector('textarea').select()")
    page.write("1, x")
    page.click(page.button("Search"))
    page.wait_text("Expected numbers")


@needs_chromium
def test_the_map(visit: Open) -> None:
    """Three clusters are three clouds; hovering shows metadata, a click finds neighbours."""
    page = visit("#/c/clusters/map")
    page.wait("document.querySelector('.map canvas')?.width > 300")
    page.wait_text("240 records by chance")
    page.wait_text("t2 (80)")
    x, y, width, height = page.box("document.querySelector('canvas')")
    found = None
    for at in range(2000):  # until the mouse is near a point
        px, py = x + 10 + (at * 37) % (width - 20), y + 10 + (at * 13) % (height - 20)
        page.move_to(px, py)
        if found := page.run("document.querySelector('.tip')?.textContent"):
            break
    assert found and "topic" in found, found
    page.click_at(px, py)
    page.wait_text("Neighbours of")
    page.wait("document.querySelectorAll('ol.plain li').length === 10")
    topic = re.search(r"topic\s*(t\d)", found)
    assert topic and page.run(
        f"[...document.querySelectorAll('ol.plain li')].every((e) => e.textContent.includes('{topic[1]}'))"
    )


@needs_chromium
def test_recall_and_live_charts(visit: Open, server: ServerProcess) -> None:
    """Exact search has recall 1; requests show up in the charts."""
    page = visit("#/c/clusters/recall")
    page.click(page.button("Measure"))
    page.wait_text("default: recall@10")
    rows = page.run("[...document.querySelectorAll('tbody tr')].map((e) => e.innerText.split('\\t'))")
    assert rows[-1][0] == "exact" and rows[-1][1] == "1.0000" and len(rows) >= 4
    page = visit("#/live")
    page.wait("document.querySelectorAll('.chart canvas').length === 4")
    deadline = "Number([...document.querySelectorAll('.figures dd')][0].textContent) > 0"
    for _ in range(100):
        for _ in range(20):
            server.call("GET", "/clusters/stats")
        if page.run(deadline):
            break
    else:
        pytest.fail("no requests in the chart")


@needs_chromium
def test_keeping(visit: Open) -> None:
    """A snapshot is made and brought back, a check runs, a backup is written."""
    page = visit("#/c/texts/keep")
    page.wait_text("Snapshots")
    focus(page, "input")
    page.write("before")
    page.press("Enter", 13)
    page.wait_text("3 records,")
    page.click(page.button("Bring back"))
    page.wait_text("Are you sure?")
    page.click("[...document.querySelectorAll('dialog .button')].at(-1)")
    page.wait("!document.querySelector('dialog')")
    page.click(page.button("Check everything"))
    page.wait_text("no problems")
    page.run("document.querySelectorAll('form input')[1].focus()")
    page.write("full")
    page.press("Enter", 13)
    page.wait_text("full: 3 records")
    page.click(page.button("Forget"))
    page.click("[...document.querySelectorAll('dialog .button')].at(-1)")
    page.wait_text("A snapshot costs next to nothing")


@needs_chromium
def test_keys_of_the_keyboard_themes_and_a_phone(visit: Open) -> None:
    """Views by numbers, rows by j and k, help; three themes; nothing is wider than a phone."""
    page = visit("#/c/clusters/records")
    page.wait("document.querySelectorAll('[data-row]').length === 50")
    for key in "jjk":
        page.press(key)
    assert page.run("document.activeElement.querySelector('.id').textContent") == "0"
    page.press("Enter", 13)
    page.wait("document.querySelector('dialog[open]')")
    page.press("Escape", 27)
    page.wait("!document.querySelector('dialog')")
    page.press("?")
    page.wait_text("all collections")
    page.press("Escape", 27)
    page.press("/")
    page.wait("document.activeElement?.matches('[data-first]')")
    page.run("document.activeElement.blur()")
    page.press("3")
    page.wait("location.hash === '#/c/clusters/map'")
    colours = set()
    for _ in range(3):
        page.press("t")
        colours.add(page.run("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2
    page = visit(width=380, height=760, dark=True)
    for place in (
        "c/clusters/records",
        "c/texts/query",
        "c/clusters/map",
        "c/clusters/recall",
        "c/texts/keep",
        "live",
        "",
    ):
        page.run(f"location.hash = '#/{place}'")
        page.wait("document.querySelector('h1') && !document.querySelector('.loading')")
        assert page.run("document.documentElement.scrollWidth") <= 380, place
    page.click(page.button("Menu"))
    page.click("[...document.querySelectorAll('nav a.collection')].find((e) => e.textContent === 'texts')")
    page.wait("location.hash === '#/c/texts/records'")


@needs_chromium
def test_what_the_modules_compute(visit: Open, tmp_path: Path) -> None:
    """JSON without loss, marked passages taken apart, packed vectors, quantiles of buckets, principal components."""
    page = visit()

    def run(module: str, expression: str) -> Any:
        return page.run(f"import('/console/{module}.js').then((m) => {expression})")

    text = '{"id":9223372036854775807,"low":-9223372036854775808,"f":0.1,"s":"\\u2028<b>","n":[null,true,1e300]}'
    assert json.loads(run("json", f"m.write(m.read({json.dumps(text)}))")) == json.loads(text)
    assert run("json", "['7', '\"7\"', '-9223372036854775808', 'x y', '7.5'].map((t) => m.write(m.typedId(t)))") == [
        "7", '"7"', "-9223372036854775808", '"x y"', '"7.5"',
    ]  # fmt: skip
    ids_ = json.dumps('7, "a,\\"b" ,x y,, "8"')
    assert run("json", f"m.typedIds({ids_}).map((id) => m.write(id))") == ["7", '"a,\\"b"', '"x y"', '"8"']
    assert run("json", "m.passage('a &lt;b&gt; <b>x &amp; y</b> &amp;lt; z')") == [
        {"bold": False, "text": "a <b> "},
        {"bold": True, "text": "x & y"},
        {"bold": False, "text": " &lt; z"},
    ]
    assert run("json", "Array.from(m.unpack(m.pack([[1, -2.5], [3e38, 0]])))") == [
        float(value) for value in np.array([1, -2.5, 3e38, 0], np.float32)
    ]
    buckets = "new Map([[0.001, 10], [0.01, 90], [0.1, 100], [Infinity, 100]])"
    assert run("live", f"[0.5, 0.99].map((s) => m.quantile(new Map(), {buckets}, s))") == pytest.approx([5.5, 91.0])
    assert run("live", f"m.quantile({buckets}, {buckets}, 0.5)") is None
    lines = json.dumps('# HELP x\na_total{b="c\\"d"} 5\nx 1e3\n')
    parsed = run("live", f"m.parse({lines}).map((p) => [p.name, p.labels.b ?? null, p.value])")
    assert parsed == [["a_total", 'c"d', 5], ["x", None, 1000]]
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((60, 5)) * [9, 4, 1, 1, 1] + 7
    for space in ("l2", "cosine"):  # the same picture as `NoPokeDB.project`, signs included
        found = run("pca", f"(({{ points, shares }}) => [points, shares])(m.project({rows.tolist()}, '{space}'))")
        with NoPokeDB(5, path=tmp_path / space, space=space) as db:
            db.add_many(rows)
            expected = db.project()
        assert found[1] == pytest.approx(expected.explained_variance.tolist(), rel=1e-5)
        assert np.array(found[0]) == pytest.approx(expected.coordinates, rel=1e-3, abs=1e-3)
    names = re.search(r"const HUES = (\[.*?\]);", (FOLDER / "map.js").read_text())
    assert names and tuple(json.loads(names[1])) == HUES


@needs_chromium
def test_a_key_is_asked_for(browser: Browser, collections: Path, tmp_path: Path) -> None:
    """Without a key nothing is shown but the question for one; a wrong one is asked for again; it goes with the tab."""
    NoPokeDB(2, path=tmp_path / "c" / "secret").close()
    server = ServerProcess(tmp_path / "c", environment={"NOPOKEDB_API_KEY": "right-key-0123456789abcdef"})
    try:
        page = browser.page(server.url)
        for key in ("wrong", "right-key-0123456789abcdef"):
            page.wait("document.querySelector('dialog input[type=password]')")
            assert "secret" not in page.text()
            page.run("document.querySelector('dialog input').focus()")
            page.write(key)
            page.press("Enter", 13)
            page.wait(f"sessionStorage.getItem('nopokedb-key') === {json.dumps(key)}")
            if key == "wrong":
                page.wait_text("expected")
        page.wait_text("secret")
        assert page.run("Object.keys(localStorage).every((name) => name === 'nopokedb-theme')")
    finally:
        assert server.stop() == 0

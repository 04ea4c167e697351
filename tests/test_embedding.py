"""Models behind an address, the cache in front of models, and what a str as `embed=` may name."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from embedding_server import EmbeddingServer, answer, serving

from nopokedb import CorruptionError, InvalidInputError, InvalidVectorError, NoPokeDB, UnavailableError
from nopokedb.embedding import Cached, FastEmbed, Model2Vec, OpenAICompatible, SentenceTransformers
from nopokedb.embedding.names import make_embedder, model_name
from nopokedb.server.collections import Collections
from nopokedb.server.requests import CreateCollection

KEY = "sk-secret-0123456789"
DIM = 8
TEXTS = [f"text number {n}" for n in range(23)]


def vector_of(text: str) -> list[float]:
    """Numbers that float32 holds exactly."""
    seed = zlib.crc32(text.encode())
    return [((seed >> (3 * n)) % 97 + 1) / 64 for n in range(DIM)]


def vectors_of(texts: list[str]) -> np.ndarray:
    return np.array([vector_of(text) for text in texts], np.float32)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with serving(vector_of) as made:
        yield made


def refusing(status: int, *, after: str = "0", says: str = "no") -> Callable[[Any], tuple[int, dict[str, str], bytes]]:
    return lambda body: (status, {"retry-after": after}, says.encode())


# --- OpenAICompatible -----------------------------------------------------------------------------------------


def test_a_collection_with_a_model_behind_an_address(server: EmbeddingServer, tmp_path: Path) -> None:
    """Vectors come in the order of the texts, whatever that of the answer; requests hold a batch; the model is known
    again at the next open, and another one is refused."""
    model = OpenAICompatible(server.url, "small", api_key=KEY, batch_size=10)
    assert np.array_equal(model(TEXTS), vectors_of(TEXTS))
    assert [len(body["input"]) for _, _, body in server.requests] == [10, 10, 3]
    path, headers, body = server.requests[0]
    assert (path, headers["authorization"], body["model"]) == ("/v1/embeddings", f"Bearer {KEY}", "small")
    with NoPokeDB(path=tmp_path / "db", embed=model) as db:
        db.add_many(texts=TEXTS)
        assert db.dim == DIM and db.query(TEXTS[5], k=1)[0].id == 5
        assert np.array_equal(db[7].vector, vectors_of(TEXTS)[7])
    with NoPokeDB(path=tmp_path / "db", embed=f"openai:{server.url}#small") as db:
        assert db.query(TEXTS[6], k=1)[0].id == 6
        assert "authorization" not in server.requests[-1][1]
    with pytest.raises(InvalidInputError, match="openai:large"):
        NoPokeDB(path=tmp_path / "db", embed=OpenAICompatible(server.url, "large"))


def test_long_texts_share_no_request(server: EmbeddingServer) -> None:
    """A request is bounded by characters too; one text that is longer goes alone."""
    texts = ["a" * 200_000, "b" * 200_000, "c" * 400_000, "d"]
    assert np.array_equal(OpenAICompatible(server.url, "m")(texts), vectors_of(texts))
    assert [len(body["input"]) for _, _, body in server.requests] == [1, 1, 1, 1]


@pytest.mark.parametrize("failure", [429, 500, 503, 0])
def test_what_may_pass_is_tried_again(server: EmbeddingServer, failure: int) -> None:
    """429, 5xx and a connection that breaks are tried again, so often and no more; the error says the last reason."""
    model = OpenAICompatible(server.url, "m", retries=1 if failure == 0 else 2)
    server.planned.append(refusing(failure))
    assert np.array_equal(model(TEXTS[:2]), vectors_of(TEXTS[:2]))
    assert len(server.requests) == 2
    server.planned.extend([refusing(failure, says="too busy")] * 3)
    with pytest.raises(UnavailableError, match="reached" if failure == 0 else rf"{failure}.*too busy"):
        model(TEXTS[:2])
    assert len(server.requests) == 2 + model._retries + 1


def test_a_wish_for_a_long_wait_ends_the_attempts(server: EmbeddingServer) -> None:
    server.planned.append(refusing(429, after="3600"))
    with pytest.raises(UnavailableError, match="429"):
        OpenAICompatible(server.url, "m")(["x"])
    assert len(server.requests) == 1


@pytest.mark.parametrize("key", ["sk-secret ", " sk-secret", "sk secret", "sk-secret\n", "sk-s\u00e9cret", 5])
def test_a_key_that_no_header_can_carry_is_refused(server: EmbeddingServer, key: Any) -> None:
    """At once, and without being repeated."""
    with pytest.raises(InvalidInputError, match="api_key") as told:
        OpenAICompatible(server.url, "m", api_key=key)
    assert "cret" not in str(told.value)


def test_a_refusal_is_told_once_and_never_the_key(server: EmbeddingServer, caplog: pytest.LogCaptureFixture) -> None:
    """Other 4xx are not tried again. The key is in no repr, error or log, even where the server repeats it."""
    caplog.set_level(logging.DEBUG)
    model = OpenAICompatible(server.url, "m", api_key=KEY)
    for status in (400, 401, 404):
        server.planned.append(refusing(status, says=f"no model for {KEY}\nhere"))
        with pytest.raises(InvalidInputError, match=rf"{status}: no model for \*\*\* here") as told:
            model(["x"])
        assert KEY not in str(told.value)
    server.planned.extend([refusing(500, says=KEY)] * 6)
    with pytest.raises(UnavailableError) as failed:
        model(["x"])
    assert len(server.requests) == 3 + 6
    assert KEY not in str(failed.value) + repr(model) + str(Cached(model, 5)) + caplog.text


def test_redirects_and_proxies_are_not_followed(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the named address is contacted."""
    with serving(vector_of) as elsewhere:
        monkeypatch.setenv("HTTP_PROXY", elsewhere.url)
        monkeypatch.setenv("ALL_PROXY", elsewhere.url)
        server.planned.append(lambda body: (307, {"location": f"{elsewhere.url}/embeddings"}, b""))
        model = OpenAICompatible(server.url, "m", api_key=KEY)
        with pytest.raises(InvalidInputError, match="307"):
            model(["x"])
        assert model(["x"]).shape == (1, DIM)
        assert not elsewhere.requests


@pytest.mark.parametrize(
    "data",
    [
        answer([vector_of("a")]),
        answer([vector_of("a")] * 3),
        json.dumps({"data": [{"index": 0, "embedding": [1.0]}] * 2}).encode(),
        json.dumps({"data": [{"index": at, "embedding": [1.0]} for at in (0, 2)]}).encode(),
        json.dumps({"data": [{"index": str(at), "embedding": [1.0]} for at in (0, 1)]}).encode(),
        answer([[1.0, 2.0], [1.0]]),
        answer([["a", "b"], ["c", "d"]]),
        answer([[], []]),
        answer([[None] * DIM] * 2),
        b'{"data": [{"index": 0, "embedding": [1e999]}, {"index": 1, "embedding": [1.0]}]}',
        b'{"data": {}}',
        b"[]",
        b"<html>",
        b"",
        answer([[1.0] * 20_000] * 2),
    ],
)
def test_a_wrong_answer_is_an_error(server: EmbeddingServer, data: bytes) -> None:
    """One vector of finite numbers for each text, all of one length: or nothing is used."""
    server.planned.append(lambda body: (200, {}, data))
    with pytest.raises(InvalidVectorError, match="expected OpenAICompatible"):
        OpenAICompatible(server.url, "m")(["a", "b"])


def test_a_dimension_does_not_change(server: EmbeddingServer) -> None:
    model = OpenAICompatible(server.url, "m")
    model(["a"])
    server.planned.append(lambda body: (200, {}, answer([[1.0, 2.0]])))
    with pytest.raises(InvalidVectorError, match="dimension 8, got 2"):
        model(["a"])
    with pytest.raises(InvalidVectorError, match="dimension 5, got 8"):
        OpenAICompatible(server.url, "m", dimensions=5)(["a"])
    assert server.requests[-1][2]["dimensions"] == 5


def test_an_endless_answer_is_cut(server: EmbeddingServer) -> None:
    server.planned.append(lambda body: (200, {}, b"[" + b" " * (3 * 2**20)))
    with pytest.raises(InvalidVectorError, match="at most"):
        OpenAICompatible(server.url, "m")(["a"])


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(UnavailableError, match="cannot be reached"):
            OpenAICompatible(url, "m", retries=0, timeout_s=5)(["a"])


def test_a_server_that_is_silent(server: EmbeddingServer) -> None:
    """The time limit ends the waiting."""
    let_go = threading.Event()
    server.planned.append(lambda body: ((let_go.wait(30) and 500) or 500, {}, b""))
    try:
        with pytest.raises(UnavailableError, match="ReadTimeout"):
            OpenAICompatible(server.url, "m", retries=0, timeout_s=0.2)(["a"])
    finally:
        let_go.set()


@pytest.mark.parametrize("url", ["", "ftp://a/v1", "http://", "http://u:secret@a/v1", "http://a/v1?x=1", 5, "a"])
def test_addresses_that_are_none(url: Any) -> None:
    with pytest.raises(InvalidInputError, match="address") as told:
        OpenAICompatible(url, "m")
    assert "secret" not in str(told.value)


def test_a_server_has_its_own_list(server: EmbeddingServer, tmp_path: Path) -> None:
    """Clients know a model by the name that collections remember; what else they ask for is refused, an address of
    theirs above all. The server finds the model again when it opens the collection anew."""

    def collections() -> Collections:
        models = (f"openai:{server.url}#small",)
        return Collections(tmp_path, max_memory=2**30, max_open=4, models=models, min_free=0)

    there = collections()
    there.create("docs", CreateCollection(embed="openai:small"))
    with there.using("docs", writing=True) as db:
        db.add_many(texts=TEXTS)
    count = len(server.requests)
    for embed in (f"openai:{server.url}#small", f"openai:{server.url}#large", "wordllama"):
        with pytest.raises(InvalidInputError, match=r"a model of this server \('openai:small'\)"):
            there.create("other", CreateCollection(embed=embed))
    assert len(server.requests) == count
    there.close()
    there = collections()
    with there.using("docs") as db:
        assert db.query(TEXTS[6], k=1)[0].id == 6
    there.close()


# --- Cached ---------------------------------------------------------------------------------------------------


class Counting:
    """A model that remembers what it was asked."""

    name = "counting"

    def __init__(self, shift: float = 0.0) -> None:
        self.asked: list[str] = []
        self.shift = shift

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        return vectors_of(texts) + np.float32(self.shift)

    def since(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> int | Path:
    return 1000 if request.param == "memory" else tmp_path / "cache"


def test_a_text_is_embedded_once(place: int | Path) -> None:
    """Bit for bit what the model says, each text asked for once, also twice in one call; the hit rate is told."""
    model = Counting()
    with_cache = Cached(model, place)
    model.since()
    assert np.array_equal(with_cache([*TEXTS[:5], TEXTS[0]]), vectors_of([*TEXTS[:5], TEXTS[0]]))
    assert model.since() == TEXTS[:5] and (with_cache.hits, with_cache.misses) == (0, 6)
    assert np.array_equal(with_cache(TEXTS[3:8]), vectors_of(TEXTS[3:8]))
    assert model.since() == TEXTS[5:8] and (with_cache.hits, with_cache.misses) == (2, 9)
    assert with_cache.hit_rate == pytest.approx(2 / 11) and len(with_cache) == 8
    assert with_cache([]).shape == (0, DIM) and "2 hits" in repr(with_cache)


def test_a_cached_model_is_the_model(tmp_path: Path) -> None:
    """A collection knows it by the model's name and fingerprint, with the cache or without."""
    with NoPokeDB(path=tmp_path / "db", embed=Counting()) as db:
        db.add_many(texts=TEXTS)
    with NoPokeDB(path=tmp_path / "db", embed=Cached(Counting(), tmp_path / "cache")) as db:
        assert db.query(TEXTS[4], k=1)[0].id == 4


def test_a_wrong_vector_is_not_kept(place: int | Path) -> None:
    """A model that failed once is asked again."""
    wrong = [np.full((2, DIM), np.nan), np.zeros((2, DIM + 1))]

    def model(texts: list[str]) -> Any:
        return wrong.pop() if len(texts) == 2 and wrong else vectors_of(texts)

    cached = Cached(model, place)
    for _ in range(2):
        with pytest.raises(InvalidVectorError):
            cached(TEXTS[:2])
    assert len(cached) == 0 and np.array_equal(cached(TEXTS[:2]), vectors_of(TEXTS[:2]))


def test_many_make_one_file_at_once(tmp_path: Path) -> None:
    """Whoever comes first makes the table; nobody takes it for something else."""
    for number in range(10):
        path, failed = tmp_path / f"cache{number}", []
        start = threading.Barrier(6)

        def make(path: Path = path, failed: list[Exception] = failed, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                Cached(vectors_of, path)(TEXTS[:3])
            except Exception as error:  # noqa: BLE001 - told below
                failed.append(error)

        threads = [threading.Thread(target=make) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []


def test_the_oldest_goes_first(place: int | Path) -> None:
    """There is an end to what is kept; what was used last stays."""
    model = Counting()
    small = Cached(model, 10) if isinstance(place, int) else Cached(model, place, max_texts=10)
    model.since()
    for text in TEXTS:
        small([TEXTS[0], text])
    model.since()
    assert len(small) <= 10
    small([TEXTS[0], TEXTS[-1]])
    assert model.since() == []
    small([TEXTS[1]])
    assert model.since() == [TEXTS[1]]


def test_a_file_outlives_the_process_and_tells_models_apart(tmp_path: Path) -> None:
    """Another object, and another process, find what was kept; another model finds nothing of it."""
    Cached(Counting(), tmp_path / "cache")(TEXTS)
    again = Counting()
    with_cache = Cached(again, tmp_path / "cache")
    again.since()
    assert np.array_equal(with_cache(TEXTS), vectors_of(TEXTS))
    assert again.since() == [] and with_cache.hit_rate == 1
    shifted = Cached(Counting(0.5), tmp_path / "cache")
    assert np.array_equal(shifted(TEXTS), vectors_of(TEXTS) + np.float32(0.5)) and shifted.hits == 0
    assert len(shifted) == 2 * len(TEXTS)


def test_a_damaged_vector_is_made_again(tmp_path: Path) -> None:
    """A flipped bit is a miss, and is mended by it."""
    Cached(Counting(), tmp_path / "cache")(TEXTS)
    connection = apsw.Connection(str(tmp_path / "cache"))
    (text, vector) = connection.execute("SELECT text, vector FROM vectors LIMIT 1").fetchone()
    broken = bytes([vector[0] ^ 1]) + vector[1:]
    connection.execute("UPDATE vectors SET vector = ? WHERE text = ?", (broken, text))
    connection.close()
    model = Counting()
    with_cache = Cached(model, tmp_path / "cache")
    model.since()
    assert np.array_equal(with_cache(TEXTS), vectors_of(TEXTS)) and with_cache.misses == len(model.since()) == 1
    assert np.array_equal(with_cache(TEXTS), vectors_of(TEXTS)) and with_cache.misses == 1


@pytest.mark.parametrize("content", ["text", "other"])
def test_a_foreign_file_is_left_alone(tmp_path: Path, content: str) -> None:
    """Somebody's file is refused, and not a byte of it is changed."""
    path = tmp_path / "file"
    if content == "text":
        path.write_text("Not a database, but a letter.\n" * 100)
    else:
        with apsw.Connection(str(path)) as connection:
            connection.execute("CREATE TABLE mine(x); INSERT INTO mine VALUES(1)")
        connection.close()
    before = path.read_bytes()
    with pytest.raises(InvalidInputError, match="something else"):
        Cached(Counting(), path)
    assert path.read_bytes() == before


def test_a_broken_file_says_what_to_do(tmp_path: Path) -> None:
    """Damage of SQLite's own pages is an error that names the file; without the file all is well."""
    Cached(Counting(), tmp_path / "cache")([f"{text} {n}" for n in range(40) for text in TEXTS])
    data = bytearray((tmp_path / "cache").read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    (tmp_path / "cache").write_bytes(data)
    for name in ("cache-wal", "cache-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(CorruptionError, match="delete the file"):
        Cached(Counting(), tmp_path / "cache")(TEXTS)
    for path in tmp_path.glob("cache*"):
        path.unlink()
    assert np.array_equal(Cached(Counting(), tmp_path / "cache")(TEXTS), vectors_of(TEXTS))


def test_threads_and_processes_share_a_file(tmp_path: Path) -> None:
    """Nobody gets a wrong vector, an error, or a lock that stays."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_embedding import *\n"
        "c = Cached(Counting(), sys.argv[2], max_texts=40)\n"
        "def run():\n"
        "    for n in range(30):\n"
        "        texts = [f'{n % 7} {text}' for text in TEXTS[n % 5 :]]\n"
        "        assert np.array_equal(c(texts), vectors_of(texts))\n"
        "        done.append(n)\n"
        "done = []\n"
        "threads = [threading.Thread(target=run) for _ in range(3)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "assert len(done) == 90 and len(c) <= 40 + 23, (len(done), len(c))\n"
    )
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "cache")]
    running = [subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told


# --- names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("wordllama", "wordllama"),
        ("model2vec:/models/potion-8M/", "model2vec:potion-8M"),
        ("sentence-transformers:all/MiniLM", "sentence-transformers:MiniLM"),
        ("fastembed:BAAI/bge-small@/models/bge", "fastembed:bge-small"),
        ("openai:http://127.0.0.1:1/v1#small", "openai:small"),
    ],
)
def test_the_name_of_a_str(text: str, name: str) -> None:
    """What a collection remembers has no path and no address in it; nothing is loaded to know it."""
    assert model_name(text) == name


@pytest.mark.parametrize("text", ["", "model2vec:", "pickle:/x", "no-such-model", "/models/x"])
def test_a_str_that_names_no_model(text: str) -> None:
    with pytest.raises(InvalidInputError, match="wordllama, model2vec:FOLDER"):
        make_embedder(text)


@pytest.mark.parametrize(
    ("kind", "module"),
    [(Model2Vec, "model2vec"), (FastEmbed, "fastembed"), (SentenceTransformers, "sentence-transformers")],
)
def test_a_missing_library_is_named(kind: Any, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line that installs it."""
    monkeypatch.setitem(sys.modules, module.replace("-", "_"), None)
    with pytest.raises(ImportError, match=rf"needs {module}: python -m pip install .*\[{module}\]"):
        kind("some-model")


@pytest.mark.parametrize("kind", [Model2Vec, FastEmbed, SentenceTransformers])
def test_what_is_no_model_of_the_library_is_refused(kind: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"hand in a loaded.*"):
        kind(object())


def test_progress_of_embedding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Many texts: a bar for the model, which is what takes the time, and one for the records."""
    with NoPokeDB(path=tmp_path / "db", embed=Counting()) as db:
        db.add_many(texts=[f"{n}" for n in range(2500)], progress=True)
        assert db.query("1234", k=1)[0].id == 1234
    shown = capsys.readouterr().err
    assert "2500/2500" in shown and "texts" in shown and "records" in shown

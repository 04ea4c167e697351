"""What is too much is refused with the right status, and hostile requests meet a server that goes on."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from .process import ServerProcess, until

VECTOR = [1.0, 0.0]
DEEP = 40


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with small limits, and two records in the collection `c`."""
    flags = (
        "--max-body-bytes 20000 --max-upload-bytes 50000 --max-k 10 --max-batch 5 --max-queries 3 --max-page 4 "
        "--max-filter-bytes 200 --timeout-s 3"
    )
    server = ServerProcess(tmp_path_factory.mktemp("small") / "collections", *flags.split())
    server.call("PUT", "/c", {"dim": 2})
    server.call("POST", "/c/records", {"records": [{"vector": VECTOR}, {"vector": VECTOR}]})
    yield server
    assert server.stop() == 0


def deep(levels: int) -> Any:
    found: Any = {"a": 1}
    for _ in range(levels):
        found = {"$not": found}
    return found


CASES = [
    # (method, path, body, status, words of the message)
    ("POST", "/c/query", {"vector": VECTOR, "k": 11}, 422, "max_k"),
    ("POST", "/c/query", {"vector": VECTOR, "k": 10**30}, 422, "expected k to be an int"),
    ("POST", "/c/query", {"vector": VECTOR, "k": 0}, 422, "expected k to be an int from 1"),
    ("POST", "/c/query", {"vector": VECTOR, "k": "5"}, 422, "expected k to be an int"),
    ("POST", "/c/query", {"vector": VECTOR, "ef": 11}, 422, "max_k"),
    ("POST", "/c/query", {"vectors": [VECTOR] * 4}, 422, "max_queries"),
    ("POST", "/c/query", {"vector": VECTOR, "where": {"a": "x" * 300}}, 422, "max_filter_bytes"),
    ("POST", "/c/count", {"where": deep(DEEP)}, 422, "max_filter_bytes"),
    ("POST", "/c/scan", {"limit": 5}, 422, "max_page"),
    ("POST", "/c/facet", {"field": "a", "limit": 5}, 422, "max_page"),
    ("POST", "/c/records", {"records": [{"vector": VECTOR}] * 6}, 422, "max_batch"),
    ("POST", "/c/records/get", {"ids": list(range(6))}, 422, "max_batch"),
    ("POST", "/c/records/delete", {"ids": list(range(6))}, 422, "max_batch"),
    ("POST", "/c/batch", {"changes": [{"op": "delete", "id": 1}] * 6}, 422, "max_batch"),
    ("POST", "/c/measure_recall", {"sample": 11}, 422, "max_k"),
    ("POST", "/c/records", {"records": [{"vector": VECTOR, "text": "x" * 30_000}]}, 413, "20000 bytes"),
    ("POST", "/c/records", {"records": [{"id": 2**63, "vector": VECTOR}]}, 422, "64 bits"),
    ("POST", "/c/records", {"records": [{"id": 2**70, "vector": VECTOR}]}, 422, "id"),
    ("POST", "/c/records", {"records": [{"id": True, "vector": VECTOR}]}, 422, "id"),
    ("POST", "/c/records", {"records": [{"id": "", "vector": VECTOR}]}, 422, "id"),
    ("POST", "/c/records", {"records": [{"id": "x" * 513, "vector": VECTOR}]}, 422, "512"),
    ("POST", "/c/records", {"records": [{"vector": [1, None]}]}, 422, "expected"),
    ("POST", "/c/records", {"records": [{"vector": ["1", "2"]}]}, 422, "expected"),
    ("POST", "/c/records", {"records": [{"vector": [1e39, 0]}]}, 422, "finite"),
    ("POST", "/c/records", {"records": [{"vector": [0, 0]}]}, 422, "norm"),
    ("POST", "/c/records", {"records": "abc"}, 422, "array"),
    ("POST", "/c/records", {"records": []}, 422, "at least one"),
    ("POST", "/c/records", {"records": [{"vector": VECTOR, "metadata": [1]}]}, 422, "dict"),
    ("PUT", "/d", {"dim": 10**9}, 422, "expected dim"),
    ("PUT", "/d", {}, 422, "dim"),
    ("PUT", "/d", {"dim": 2, "embed": "/etc/passwd"}, 422, "embed"),
    ("PUT", "/d", {"dim": 2, "path": "/tmp/x"}, 422, "expected only the fields"),
    ("PUT", "/" + "x" * 200, {"dim": 2}, 422, "collection name"),
    ("PUT", "/..%2f..%2fetc", {"dim": 2}, 404, "address"),
    ("PUT", "/%2e%2e", {"dim": 2}, 422, "collection name"),
    ("PUT", "/.backups", {"dim": 2}, 422, "collection name"),
    ("PUT", "/a%00b", {"dim": 2}, 422, "collection name"),
    ("PUT", "/a%0d%0ab", {"dim": 2}, 422, "collection name"),
    ("PUT", "/c/snapshots/..%2fx", None, 404, "address"),
    ("PUT", "/c/snapshots/%2e%2e", None, 422, "name of a snapshot"),
    ("POST", "/c/backup", {"name": "../x"}, 422, "name of a backup"),
    ("POST", "/c/backup", {"name": "/etc/x"}, 422, "name of a backup"),
    ("POST", "/c/backup", {"name": "x\0"}, 422, "name of a backup"),
    ("POST", "/c/backup", {"name": "ok", "since": "../../x"}, 422, "name of a backup"),
    ("POST", "/c/backup", {"name": "ok", "since": "absent"}, 404, "earlier backup"),
    ("PUT", "/c/indexes/%24id", None, 422, "$id"),
    ("GET", "/c/records/1?id_type=int", None, 422, "id_type"),
    ("GET", "/c/records/1?x=1", None, 422, "expected only"),
    ("GET", "/c/records/1?id_type=str&id_type=str", None, 422, "once"),
    ("GET", "/c/records/" + "9" * 5000, None, 422, "64 bits"),
    ("POST", "/c/records?mode=other", {"records": []}, 422, "expected nothing after ?"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "words"), CASES)
def test_too_much_or_wrong_is_refused(
    small: ServerProcess, method: str, path: str, body: Any, status: int, words: str
) -> None:
    """With a message that says what was expected; nothing is changed."""
    answer = small.call(method, path, body, status=status)["error"]
    assert words in answer["message"], answer
    assert small.call("POST", "/c/count") == {"count": 2}


BODIES = [
    (b"{", 400),
    (b"\xff\xfe", 400),
    (b'{"k": NaN}', 400),
    (b'{"text": "\\ud800"}', 400),
    (b'{"vector": [1e999, 0]}', 400),
    (b"[" * 10_000, 400),
    (b'{"where": ' + b'{"$not": ' * 1000 + b"{}" + b"}" * 1000 + b"}", 422),
    (b"null", 422),
    (b"1", 422),
]


@pytest.mark.parametrize(("body", "status"), BODIES)
def test_bodies_that_are_no_request(small: ServerProcess, body: bytes, status: int) -> None:
    """Never a crash, and never a 5xx."""
    answer = small.client.post("/v1/collections/c/query", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"].startswith("expected")


def test_content_types_and_encodings(small: ServerProcess) -> None:
    """Nothing is unpacked, so there is no bomb; a form of another page is no JSON."""
    for headers in (
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ):
        answer = small.client.post("/v1/collections/c/query", content=b"{}", headers=headers)
        assert answer.status_code == 415, headers


def test_uploads_have_a_limit_of_their_own(small: ServerProcess) -> None:
    """Told by the header, or noticed on the way; lines are bounded too."""
    line = json.dumps({"vector": VECTOR, "text": "x" * 100}) + "\n"
    headers = {"content-type": "application/x-ndjson"}
    url = "/v1/collections/c/records?mode=insert"
    assert small.client.post(url, content=line * 500, headers=headers).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(500):
            yield line.encode()

    assert small.client.post(url, content=chunks(), headers=headers).status_code == 413
    assert small.client.post(url, content=b"x" * 30_000, headers=headers).status_code == 422


def connected(server: ServerProcess) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


HEAD = b"POST /v1/collections/c/query HTTP/1.1\r\nhost: 127.0.0.1\r\n"


def test_a_body_that_never_ends(small: ServerProcess) -> None:
    """A slow body is answered with 503 when its time is over; an endless one with 413 at the limit."""
    with connected(small) as slow:
        slow.sendall(HEAD + b"content-length: 100\r\n\r\n{")
        assert slow.recv(4096).startswith(b"HTTP/1.1 503 ")
    with connected(small) as endless:
        endless.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n" + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 6)
        assert endless.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_headers_without_end(small: ServerProcess) -> None:
    """Very long headers are refused before they fill the memory."""
    with connected(small) as long:
        try:
            for _ in range(100):
                long.sendall(b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 65536)
            answer = long.recv(4096)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        assert not answer or answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    assert small.call("POST", "/c/count") == {"count": 2}


def test_too_many_requests_at_once(serve: Callable[..., ServerProcess]) -> None:
    """Those beyond the limit are told to come back; those within it are answered."""
    server = serve("--max-concurrent", "2", "--timeout-s", "30")
    server.call("PUT", "/c", {"dim": 2})
    waiting: list[socket.socket] = []

    def begin() -> socket.socket:
        item = connected(server)
        item.sendall(HEAD + b"content-length: 30\r\n\r\n{")
        return item

    def both_at_work() -> bool:
        for item in select.select(waiting, [], [], 0)[0]:  # refused, for the question below was just being answered
            waiting.remove(item)
            item.close()
        while len(waiting) < 2:
            waiting.append(begin())
        return server.client.get("/v1/collections").status_code != 200

    until(both_at_work)
    answer = server.client.get("/v1/collections")
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["type"] == "TooManyRequestsError"
    for item in waiting:
        item.sendall(b'"vector": [1, 0], "k": 1}    ')
        assert item.recv(4096).startswith(b"HTTP/1.1 200 ")
        item.close()
    assert server.client.get("/v1/collections").status_code == 200


def test_hostile_text_stays_on_its_line_in_the_log(serve: Callable[..., ServerProcess]) -> None:
    """Control characters in a path or an id come out as JSON escapes; one request is one line."""
    server = serve("--log-requests")
    server.client.get('/v1/x%0d%0a{"level":"forged"}%1b[31m')
    server.client.get("/v1/collections", headers={"x-request-id": "my-id_1"})
    answer = server.client.get("/v1/collections", headers={"x-request-id": "evil id {}"})
    assert answer.headers["x-request-id"] != "evil id {}"
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    requests = [line for line in lines if line["message"] == "request"]
    assert next(line["path"] for line in requests).startswith("/v1/x\r\n")
    assert requests[1]["request_id"] == "my-id_1" and len(requests) == 3


def test_many_threads_meet_no_error(small: ServerProcess) -> None:
    """The limits of one request do not get in the way of many small ones."""
    failures: list[str] = []

    def ask() -> None:
        for _ in range(20):
            answer = small.bare.post("/v1/collections/c/query", json={"vector": VECTOR, "k": 2})
            if answer.status_code != 200:
                failures.append(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures

"""The life of a server: it starts, never waits for a disk in its event loop, is killed, and stops cleanly."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from nopokedb import NoPokeDB, check
from nopokedb.embedded import read_path
from nopokedb.embedded.storage.oplog import OplogWriter
from nopokedb.server.rest.app import make_app
from nopokedb.server.rest.gate import HostRule
from nopokedb.server.service import Service
from nopokedb.server.settings import ServerSettings

from .process import ServerProcess, until

DIM = 8


def vector_of(number: int) -> list[float]:
    return [float(value) for value in np.random.default_rng(number).standard_normal(DIM).astype(np.float32)]


def record(number: int) -> dict[str, Any]:
    return {"id": number, "vector": vector_of(number), "metadata": {"n": number}, "text": f"word{number}"}


# --- the event loop -------------------------------------------------------------------------------------------


class Held:
    """A call that waits in its thread until it is let go, and remembers which thread that was."""

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()
        self.threads: set[int] = set()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def held(*arguments: Any, **options: Any) -> Any:
            self.threads.add(threading.get_ident())
            self.entered.set()
            assert self.let_go.wait(60)
            return function(*arguments, **options)

        return held


def in_process(tmp_path: Path, work: Callable[[httpx.AsyncClient], Any]) -> None:
    """Run against the application in this process, so that its calls can be held."""
    service = Service(ServerSettings(tmp_path / "collections"))

    async def run() -> None:
        app = make_app(service, HostRule("127.0.0.1", (), loopback=True))
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            assert (await client.put("/v1/collections/c", json={"dim": DIM})).status_code == 201
            body = {"records": [record(n) for n in range(3)]}
            assert (await client.post("/v1/collections/c/records", json=body)).status_code == 200
            await work(client)

    try:
        asyncio.run(run())
    finally:
        service.close()


async def entered(held: Held) -> None:
    """The call is under way, in whichever thread."""
    assert await asyncio.to_thread(held.entered.wait, 60)


def test_the_event_loop_goes_on_while_a_sync_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a write held inside its sync, health and queries are answered: neither waits for the disk."""
    held = Held()

    async def work(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(OplogWriter, "sync", held.around(OplogWriter.sync))
        writing = asyncio.create_task(client.post("/v1/collections/c/records", json={"records": [record(9)]}))
        await entered(held)
        assert (await client.get("/healthz")).status_code == 200
        found = await client.post("/v1/collections/c/query", json={"vector": vector_of(1), "k": 1})
        assert found.json()["hits"][0]["id"] == 1
        assert not writing.done()
        held.let_go.set()
        assert (await writing).json() == {"ids": [9]}

    in_process(tmp_path, work)
    assert threading.get_ident() not in held.threads


def test_the_event_loop_goes_on_while_a_query_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With queries held inside the search, health and writes are answered, and those that wait get theirs together."""
    held = Held()
    sizes: list[int] = []

    def counted(space: str, snapshot: Any, allowed: Any, queries: Any, *rest: Any, **options: Any) -> Any:
        sizes.append(len(queries))
        return real(space, snapshot, allowed, queries, *rest, **options)

    real = read_path.nearest_rows

    async def work(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(read_path, "nearest_rows", held.around(counted))
        bodies = [{"vector": vector_of(n % 3), "k": 2} for n in range(12)]
        asking = [asyncio.create_task(client.post("/v1/collections/c/query", json=body)) for body in bodies]
        await entered(held)
        assert (await client.get("/healthz")).status_code == 200
        await client.post("/v1/collections/c/records", json={"records": [record(9)]})
        assert not any(task.done() for task in asking)
        held.let_go.set()
        answers = [task.json()["hits"] for task in await asyncio.gather(*asking)]
        for n, answer in enumerate(answers):
            assert answer[0]["id"] == n % 3 and answer == answers[n % 3]

    in_process(tmp_path, work)
    assert threading.get_ident() not in held.threads
    assert sum(sizes) == 12 and max(sizes) > 1, sizes


def test_one_of_several_waiting_queries_that_fails_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries that are answered together are refused one by one."""
    held = Held()
    real = read_path.ReadPath._hits

    def failing(self: Any, snapshot: Any, query: Any, questions: Any, *rest: Any) -> Any:
        if any(abs(float(question[0]) - vector_of(2)[0]) < 1e-6 for question in questions):
            raise MemoryError("no memory for this one")
        return real(self, snapshot, query, questions, *rest)

    async def work(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(read_path.ReadPath, "_hits", failing)
        monkeypatch.setattr(read_path, "nearest_rows", held.around(read_path.nearest_rows))
        bodies = [{"vector": vector_of(n % 3), "k": 1} for n in range(9)]
        asking = [asyncio.create_task(client.post("/v1/collections/c/query", json=body)) for body in bodies]
        await entered(held)
        held.let_go.set()
        statuses = [answer.status_code for answer in await asyncio.gather(*asking)]
        assert statuses == [200, 200, 503] * 3

    in_process(tmp_path, work)


def test_a_request_that_takes_too_long_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 after the time limit; what was begun is finished, and the collection goes on."""
    held = Held()

    async def work(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(OplogWriter, "sync", held.around(OplogWriter.sync))
        service = client._transport.app._service  # type: ignore[attr-defined]
        object.__setattr__(service.limits, "timeout_s", 0.2)
        answer = await client.post("/v1/collections/c/records", json={"records": [record(9)]})
        assert answer.status_code == 503 and answer.json()["error"]["type"] == "TimeLimitError"
        held.let_go.set()
        deadline = time.monotonic() + 60
        while (await client.post("/v1/collections/c/count", json={})).json() != {"count": 4}:
            assert time.monotonic() < deadline

    in_process(tmp_path, work)


# --- many clients, and the end --------------------------------------------------------------------------------


class Connection:
    """The least of an HTTP client: two hundred of these leave the processor to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        content = json.dumps(body).encode()
        head = f"POST /v1/collections{path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(content)}\r\n\r\n"
        self._writer.write(head.encode() + content)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        return int(lines[0].split()[1]), json.loads(await self._reader.readexactly(length))

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


def test_two_hundred_clients_at_once(serve: Callable[..., ServerProcess]) -> None:
    """All of them are answered, each sees what it wrote, and none waits without end."""
    server = serve()
    server.call("PUT", "/c", {"dim": DIM})
    clients, rounds = 200, 4
    times: list[float] = []

    async def one(number: int) -> None:
        client = Connection(*await asyncio.open_connection("127.0.0.1", urlsplit(server.url).port))
        for turn in range(rounds):
            key = number * rounds + turn
            began = time.perf_counter()
            assert await client.post("/c/records", {"records": [record(key)]}) == (200, {"ids": [key]})
            status, answer = await client.post("/c/query", {"vector": vector_of(key), "k": 1})
            assert (status, answer["hits"][0]["id"]) == (200, key)
            times.append(time.perf_counter() - began)
        await client.close()

    async def run() -> None:
        await asyncio.gather(*(one(number) for number in range(clients)))

    asyncio.run(run())
    p99_s = sorted(times)[int(len(times) * 0.99)]
    print(f"p99 of a write and a query: {p99_s * 1e3:.0f} ms")
    assert p99_s < 10  # a bound for the busiest machine; a lost wake-up would take for ever
    assert server.call("POST", "/c/count") == {"count": clients * rounds}
    assert server.stop() == 0


def test_kill_9_under_load_loses_nothing_acknowledged(serve: Callable[..., ServerProcess], seed: int) -> None:
    """Twice: whatever was answered with 200 is there after the next start, byte for byte."""
    acknowledged: dict[int, dict[str, Any]] = {}
    counter = iter(range(1_000_000))
    lock = threading.Lock()
    enough = np.random.default_rng(seed).integers(20, 120, 2)
    for round_, count in enumerate(enough):
        server = serve()
        if not round_:
            server.call("PUT", "/c", {"dim": DIM})
        begun = len(acknowledged)

        def load(server: ServerProcess = server) -> None:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                while True:
                    with lock:
                        numbers = [next(counter) for _ in range(3)]
                    try:
                        body = {"records": [record(number) for number in numbers]}
                        answer = client.post("/v1/collections/c/records", json=body)
                    except httpx.TransportError:
                        return
                    if answer.status_code != 200:
                        return
                    with lock:
                        acknowledged.update({number: record(number) for number in numbers})

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda wanted=begun + count: len(acknowledged) >= wanted)  # type: ignore[misc]
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        for thread in threads:
            thread.join()
    server = serve()
    for at in range(0, len(acknowledged), 100):
        keys = list(acknowledged)[at : at + 100]
        body = {"ids": keys, "include": ["metadata", "vector", "text"]}
        found = server.call("POST", "/c/records/get", body)["records"]
        for key, item in zip(keys, found, strict=True):
            expected = acknowledged[key]
            assert item is not None, f"record {key} was acknowledged and is lost"
            assert {name: item[name] for name in expected} == expected | {"vector": item["vector"]}
            assert np.array_equal(np.float32(item["vector"]), np.float32(expected["vector"]))
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(serve: Callable[..., ServerProcess], tmp_path: Path, number: int) -> None:
    """Requests in flight are finished, every collection has its checkpoint, the exit code is 0."""
    server = serve()
    server.call("PUT", "/c", {"dim": DIM})
    answers: list[int] = []

    def stream() -> Iterator[bytes]:
        for n in range(200):
            if n == 100:
                server.process.send_signal(number)
                until(stopping)
                refused = time.monotonic()  # a request that goes on for a while, however soon the others are done
                until(lambda since=refused: time.monotonic() > since + 1)  # type: ignore[misc]
            yield json.dumps(record(n)).encode() + b"\n"

    def stopping() -> bool:
        try:
            socket.create_connection(("127.0.0.1", urlsplit(server.url).port)).close()
        except (ConnectionRefusedError, ConnectionResetError):  # reset: it was waiting as the socket was closed
            return True
        return False

    with httpx.Client(base_url=server.url, timeout=60) as client:
        answer = client.post(
            "/v1/collections/c/records", content=stream(), headers={"content-type": "application/x-ndjson"}
        )
        answers.append(answer.status_code)
        assert answer.json() == {"count": 200}
    assert server.stop() == 0
    assert check(tmp_path / "collections" / "c") == []
    with NoPokeDB(path=tmp_path / "collections" / "c", read_only=True) as db:
        assert len(db) == 200 and db.stats().checkpoint_lsn == db.stats().lsn


def test_what_it_prints(tmp_path: Path) -> None:
    """The address of the console, for people."""
    command = [sys.executable, "-m", "nopokedb", "serve", str(tmp_path / "c"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
        assert process.wait(60) == 0
    assert line.startswith(f"serving {tmp_path / 'c'}, console at http://127.0.0.1:") and line.endswith("/\n")


def test_flags_are_environment_variables(serve: Callable[..., ServerProcess]) -> None:
    """A limit of the environment is the limit."""
    server = serve(environment={"NOPOKEDB_MAX_K": "3", "NOPOKEDB_ALLOW_HOST": "a.example b.example"})
    server.call("PUT", "/c", {"dim": DIM})
    assert "max_k" in server.call("POST", "/c/query", {"vector": vector_of(1), "k": 4}, status=422)["error"]["message"]
    for host, status in (("b.example", 200), ("c.example", 403)):
        assert server.bare.get("/v1/collections", headers={"host": host}).status_code == status


def test_tls(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """With a certificate it speaks https, to those who trust that certificate."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, which makes the certificate")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *more], capture_output=True, check=True)
    server = serve("--tls-cert", str(cert), "--tls-key", str(key), trust=cert)
    assert server.url.startswith("https://")
    assert server.call("GET", "") == {"collections": []}
    with pytest.raises((ssl.SSLError, httpx.ConnectError)):
        httpx.get(server.url)

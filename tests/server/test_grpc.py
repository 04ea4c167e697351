"""gRPC as its callers see it: keys, codes, limits, streams, standard services, many clients, and kill -9."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from nopokedb import NoPokeDB, NoPokeError, OutcomeUnknownError
from nopokedb.rpc import nopokedb_pb2 as pb
from nopokedb.rpc.methods import ERROR_KEY, IMPORT, METHODS, SCAN, SERVICE, WRITE_STREAM, Method
from nopokedb.server.access import ROLES
from nopokedb.server.keys import create_key
from nopokedb.server.operations import OPERATIONS

from .process import ServerProcess

DIM = 4
_HIGHER = dict.fromkeys(
    ("create", "drop", "backup", "backups", "drop_backup", "restore", "check", "compact", "optimize"), "admin"
)


def target_of(server: ServerProcess) -> str:
    return server.addresses["grpc"].partition("://")[2]


def vector_bytes(*values: float) -> bytes:
    return np.float32(values).tobytes()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, grpc.Channel, dict[str, str]]]:
    """A server with a key of each role and one for another collection, its limits low."""
    folder = tmp_path_factory.mktemp("grpc")
    keys = {role: create_key(folder / "keys.json", role, role) for role in ROLES}
    keys["other"] = create_key(folder / "keys.json", "other", "admin", ["other"])
    flags = ("--max-k", "10", "--max-body-bytes", "50000", "--max-upload-bytes", "100000", "--max-filter-bytes", "100")
    server = ServerProcess(folder / "collections", "--keys", str(folder / "keys.json"), *flags, key=keys["admin"])
    server.call("PUT", "/docs", {"dim": DIM})
    with grpc.insecure_channel(target_of(server)) as channel:
        yield server, channel, keys
    assert server.stop() == 0


def answer(channel: grpc.Channel, path: str, message: Any, key: str | None) -> tuple[grpc.StatusCode, Any]:
    """The code of a call, and its error's document."""
    metadata = () if key is None else (("authorization", f"Bearer {key}"),)
    call = channel.unary_unary(path, lambda item: item.SerializeToString())
    try:
        call(message, metadata=metadata, timeout=30)
    except grpc.RpcError as error:
        found = dict(error.trailing_metadata() or ()).get(ERROR_KEY)
        return error.code(), None if found is None else orjson.loads(found)
    return grpc.StatusCode.OK, None


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_with_every_key(keyed: tuple[Any, Any, dict[str, str]], method: Method) -> None:
    """Without a good key nothing is answered; with one, what its role may do, on its collections."""
    _, channel, keys = keyed
    message = method.asked()
    if "collection" in method.asked.DESCRIPTOR.fields_by_name and method.name != "DropCollection":
        message.collection = "docs"
    for key in (None, "npk_wrong"):
        code, document = answer(channel, method.path, message, key)
        assert code is grpc.StatusCode.UNAUTHENTICATED and document["type"] == "UnauthorizedError"
    operation = OPERATIONS.get(method.operation)
    role = _HIGHER.get(method.operation, "read") if operation is None else operation.role
    for name in ROLES:
        code, _ = answer(channel, method.path, message, keys[name])
        allowed = ROLES.index(name) >= ROLES.index(role)  # type: ignore[arg-type]
        assert (code is grpc.StatusCode.PERMISSION_DENIED) != allowed, (name, code)
    if method.operation not in ("list", "job", "jobs"):
        assert answer(channel, method.path, message, keys["other"])[0] is grpc.StatusCode.PERMISSION_DENIED


def test_a_restore_needs_the_right_to_both_collections(keyed: tuple[Any, Any, dict[str, str]]) -> None:
    """Who may make a collection may not fill it with what another one holds."""
    _, channel, keys = keyed
    for source, code in (("docs", grpc.StatusCode.PERMISSION_DENIED), ("other", grpc.StatusCode.NOT_FOUND)):
        message = pb.RestoreRequest(collection="other", backups=["one"], backup_of=source)
        assert answer(channel, f"/{SERVICE}/Restore", message, keys["other"])[0] is code


def test_streams_want_a_key_too(keyed: tuple[Any, Any, dict[str, str]]) -> None:
    _, channel, keys = keyed
    read = (("authorization", f"Bearer {keys['read']}"),)
    scan = channel.unary_stream(SCAN, pb.ScanRequest.SerializeToString, pb.ScanReply.FromString)
    write = channel.stream_stream(WRITE_STREAM, pb.WriteRequest.SerializeToString, pb.IdsReply.FromString)
    batch = pb.WriteRequest(collection="docs", records=[pb.RecordInput(vector=vector_bytes(1, 2, 3, 4))])
    admin = (("authorization", f"Bearer {keys['admin']}"),)
    load = channel.stream_stream(IMPORT, pb.ImportRequest.SerializeToString, pb.DocumentReply.FromString)
    part = pb.ImportRequest(collection="docs", format="jsonl", data=b"x" * 40_000)
    for call, code in (
        (scan(pb.ScanRequest(collection="docs")), grpc.StatusCode.UNAUTHENTICATED),
        (write(iter([batch])), grpc.StatusCode.UNAUTHENTICATED),
        (write(iter([batch]), metadata=read), grpc.StatusCode.PERMISSION_DENIED),
        (load(iter([part])), grpc.StatusCode.UNAUTHENTICATED),
        (load(iter([part]), metadata=read), grpc.StatusCode.PERMISSION_DENIED),
        (load(iter([part] * 10), metadata=admin), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is code
    assert len(list(scan(pb.ScanRequest(collection="docs"), metadata=read))) == 1  # the first page, which is empty


def test_health_and_reflection(keyed: tuple[Any, Any, dict[str, str]]) -> None:
    """Health is for everybody; what there is to call is told to those who have a key."""
    _, channel, keys = keyed
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        reply = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        ProtoReflectionDescriptorDatabase(channel).get_services()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    for key, good in (("read", True), ("other", False)):
        with_key = grpc.intercept_channel(channel, _Key(keys[key]))
        database = ProtoReflectionDescriptorDatabase(with_key)
        if good:
            assert set(database.get_services()) >= {SERVICE, "grpc.health.v1.Health"}
            assert "Query" in {m.name for m in database.FindFileContainingSymbol(SERVICE).service[0].method}
        else:
            with pytest.raises(grpc.RpcError):
                database.get_services()


class _Key(grpc.StreamStreamClientInterceptor):  # type: ignore[misc]  # the package has no types
    def __init__(self, key: str) -> None:
        self._metadata = [("authorization", f"Bearer {key}")]

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(details._replace(metadata=self._metadata), requests)


WRONG: list[tuple[str, Any, grpc.StatusCode, str]] = [
    ("Query", pb.QueryRequest(vector=vector_bytes(1, 2)), grpc.StatusCode.INVALID_ARGUMENT, "InvalidVectorError"),
    ("Query", pb.QueryRequest(vector=b"abc"), grpc.StatusCode.INVALID_ARGUMENT, "MalformedRequestError"),
    ("Query", pb.QueryRequest(vector=vector_bytes(1, 2, 3, 4), k=11), grpc.StatusCode.INVALID_ARGUMENT, "LimitError"),
    ("Query", pb.QueryRequest(), grpc.StatusCode.INVALID_ARGUMENT, "InvalidInputError"),
    ("Count", pb.CountRequest(where=b"{"), grpc.StatusCode.INVALID_ARGUMENT, "MalformedRequestError"),
    ("Count", pb.CountRequest(where=b'{"a":{"$x":1}}'), grpc.StatusCode.INVALID_ARGUMENT, "InvalidFilterError"),
    ("Count", pb.CountRequest(where=b'{"a":"%s"}' % (b"x" * 200)), grpc.StatusCode.INVALID_ARGUMENT, "LimitError"),
    ("Count", pb.CountRequest(at="nothing"), grpc.StatusCode.NOT_FOUND, "SnapshotNotFoundError"),
    ("Write", pb.WriteRequest(mode="x"), grpc.StatusCode.INVALID_ARGUMENT, "InvalidInputError"),
    ("Write", pb.WriteRequest(records=[pb.RecordInput()]), grpc.StatusCode.INVALID_ARGUMENT, "InvalidVectorError"),
    ("Undo", pb.CollectionRequest(), grpc.StatusCode.FAILED_PRECONDITION, "NothingToUndoError"),
    (
        "CreateCollection",
        pb.CreateCollectionRequest(dim=9),
        grpc.StatusCode.FAILED_PRECONDITION,
        "SettingsMismatchError",
    ),
    ("Job", pb.JobRequest(name="x"), grpc.StatusCode.NOT_FOUND, "NoSuchThingError"),
]


@pytest.mark.parametrize(("name", "message", "code", "kind"), WRONG)
def test_errors_have_codes_and_documents(
    keyed: tuple[Any, Any, dict[str, str]], name: str, message: Any, code: grpc.StatusCode, kind: str
) -> None:
    """The code of the table, and the type and the sentence that REST tells."""
    _, channel, keys = keyed
    if "collection" in message.DESCRIPTOR.fields_by_name:
        message.collection = "docs"
    found, document = answer(channel, f"/{SERVICE}/{name}", message, keys["admin"])
    assert (found, document["type"]) == (code, kind), document
    assert document["message"].startswith("expected") and document["request_id"]


def test_bytes_that_are_no_message(keyed: tuple[Any, Any, dict[str, str]]) -> None:
    """Garbage and too much of it are refused, and the server goes on."""
    _, channel, keys = keyed
    call = channel.unary_unary(f"/{SERVICE}/Query")
    metadata = (("authorization", f"Bearer {keys['read']}"),)
    for raw, code in (
        (b"\xff" * 100, grpc.StatusCode.INVALID_ARGUMENT),
        (b"\x00" * 60_000, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(raw, metadata=metadata, timeout=30)
        assert caught.value.code() is code
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/Nothing")(b"", metadata=metadata, timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_stream_of_batches(shared: ServerProcess) -> None:
    """Each is acknowledged by itself; a wrong one ends the stream, and those before it stay."""
    shared.call("PUT", "/stream", {"dim": DIM})
    with grpc.insecure_channel(target_of(shared)) as channel:
        call = channel.stream_stream(WRITE_STREAM, pb.WriteRequest.SerializeToString, pb.IdsReply.FromString)

        def batches() -> Iterator[pb.WriteRequest]:
            for _ in range(20):
                records = [pb.RecordInput(vector=vector_bytes(1, 2, 3, 4), metadata=b'{"a":1}')] * 10
                yield pb.WriteRequest(collection="stream", records=records)
            yield pb.WriteRequest(collection="stream", records=[pb.RecordInput(vector=b"")])

        replies = []
        with pytest.raises(grpc.RpcError) as caught:
            for reply in call(batches()):
                replies += [id_.number for id_ in reply.ids]
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert replies == list(range(200))
    assert shared.call("POST", "/stream/count", {"where": {"a": 1}}) == {"count": 200}
    assert 'transport="grpc"' in shared.client.get("/metrics").text


def test_a_file_in_parts(shared: ServerProcess) -> None:
    """It is taken as it comes and written by a job; what is wrong with it, or with the call, is said."""
    shared.call("PUT", "/parts", {"dim": DIM})
    rows = b"".join(b'{"id": %d, "vector": [1, 2, 3, %d]}\n' % (n, n) for n in range(300))
    with grpc.insecure_channel(target_of(shared)) as channel:
        call = channel.stream_unary(IMPORT, pb.ImportRequest.SerializeToString, pb.DocumentReply.FromString)
        job_of = channel.unary_unary(f"/{SERVICE}/Job", pb.JobRequest.SerializeToString, pb.DocumentReply.FromString)

        def ended(first: pb.ImportRequest, *rest: bytes) -> dict[str, Any]:
            job = orjson.loads(call(iter([first, *(pb.ImportRequest(data=part) for part in rest)])).json)
            while job["ended_at"] is None:
                job = orjson.loads(job_of(pb.JobRequest(name=job["id"])).json)
            return job  # type: ignore[no-any-return]

        first = pb.ImportRequest(collection="parts", format="jsonl", batch_size=100, data=rows[:100])
        job = ended(first, rows[100:5_001], rows[5_001:])
        assert job["state"] == "done" and job["result"] == {"count": 300}, job
        assert shared.call("POST", "/parts/count") == {"count": 300}
        again = ended(first, rows[100:])
        assert again["state"] == "failed" and again["error"]["type"] == "DuplicateIdError"
        first.mode = "upsert"
        assert ended(first, rows[100:])["result"] == {"count": 300}
        for wrong, code in (
            (pb.ImportRequest(collection="absent", format="jsonl"), grpc.StatusCode.NOT_FOUND),
            (pb.ImportRequest(collection="parts", format="npy"), grpc.StatusCode.INVALID_ARGUMENT),
            (pb.ImportRequest(collection="parts", format="csv", mode="x"), grpc.StatusCode.INVALID_ARGUMENT),
            (pb.ImportRequest(collection="parts", format="csv", batch_size=0), grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(iter([wrong]))
            assert caught.value.code() is code
        with pytest.raises(grpc.RpcError) as caught:
            call(iter([]))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        jobs = channel.unary_unary(f"/{SERVICE}/Jobs", pb.JobsRequest.SerializeToString, pb.DocumentReply.FromString)
        listed = [item for item in orjson.loads(jobs(pb.JobsRequest()).json)["jobs"] if item["collection"] == "parts"]
        assert [(item["kind"], item["state"]) for item in listed] == [
            ("import", "done"),
            ("import", "failed"),
            ("import", "done"),
        ]


def test_two_hundred_grpc_clients_at_once(shared: ServerProcess) -> None:
    """All of them are answered, each sees what it wrote, and none waits without end."""
    shared.call("PUT", "/many", {"dim": DIM})
    clients, rounds = 200, 3
    times: list[float] = []

    async def one(number: int) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)  # a connection of its own
        async with grpc.aio.insecure_channel(target_of(shared), options) as channel:
            write = channel.unary_unary(f"/{SERVICE}/Write", pb.WriteRequest.SerializeToString, pb.IdsReply.FromString)
            query = channel.unary_unary(
                f"/{SERVICE}/Query", pb.QueryRequest.SerializeToString, pb.QueryReply.FromString
            )
            for turn in range(rounds):
                key, vector = number * rounds + turn, np.random.default_rng([number, turn]).normal(size=DIM)
                packed, began = vector_bytes(*vector), time.perf_counter()
                record = pb.RecordInput(id=pb.Id(number=key), vector=packed)
                reply = await write(pb.WriteRequest(collection="many", records=[record]))
                assert [id_.number for id_ in reply.ids] == [key]
                found = await query(pb.QueryRequest(collection="many", vector=packed, k=1))
                assert found.answers[0].hits[0].id.number == key
                times.append(time.perf_counter() - began)

    async def run() -> None:
        await asyncio.gather(*(one(number) for number in range(clients)))

    asyncio.run(run())
    p99_s = sorted(times)[int(len(times) * 0.99)]
    print(f"p99 of a write and a query: {p99_s * 1e3:.0f} ms")
    assert p99_s < 20  # a bound for the busiest machine; a lost wake-up would take for ever
    assert shared.call("POST", "/many/count") == {"count": clients * rounds}


def test_kill_9_under_grpc_load_loses_nothing_acknowledged(serve: Callable[..., ServerProcess], seed: int) -> None:
    """Twice: whatever was acknowledged is there after the next start, to the last bit."""
    rng = np.random.default_rng(seed)
    acknowledged: dict[int | str, tuple[bytes, int]] = {}
    lock = threading.Lock()
    for round_, count in enumerate(rng.integers(20, 120, 2)):
        server = serve()
        NoPokeDB(path=server.addresses["grpc"], collection="c", dim=DIM).close()
        begun = len(acknowledged)

        def load(worker: int, server: ServerProcess = server, round_: int = round_) -> None:
            mine = np.random.default_rng([seed, worker, round_])
            with NoPokeDB(path=server.addresses["grpc"], collection="c", timeout_s=5) as db:
                while True:
                    vectors, n = mine.normal(size=(3, DIM)).astype(np.float32), int(mine.integers(1000))
                    try:
                        ids = db.add_many(vectors, [{"n": n}] * 3, texts=["t"] * 3)
                    except (OutcomeUnknownError, NoPokeError):
                        return
                    with lock:
                        acknowledged.update({id_: (row.tobytes(), n) for id_, row in zip(ids, vectors, strict=True)})

        threads = [threading.Thread(target=load, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        while len(acknowledged) < begun + count:
            pass
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        for thread in threads:
            thread.join()
    server = serve()
    with NoPokeDB(path=server.addresses["grpc"], collection="c") as db:
        ids = list(acknowledged)
        for id_, record in zip(ids, db.get_many(ids, include=("metadata", "vector", "text")), strict=True):
            assert record is not None, f"record {id_} was acknowledged and is lost"
            assert record.vector is not None and record.metadata is not None
            assert (record.vector.tobytes(), record.metadata["n"]) == acknowledged[id_] and record.text == "t"
        assert db.check() == []


def test_without_grpc(serve: Callable[..., ServerProcess]) -> None:
    """--grpc-port -1 serves REST alone."""
    server = serve("--grpc-port", "-1")
    assert server.addresses["grpc"] is None and server.client.get("/healthz").status_code == 200

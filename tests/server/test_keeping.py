"""Looking after collections: jobs, uploads, health, numbers, documents, opening and closing, full disks."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

import nopokedb
from nopokedb import (
    ArchiveError,
    InvalidInputError,
    NoPokeDB,
    NoPokeError,
    NotSupportedError,
    StoredBackup,
    drop_backup,
    drop_collection,
    list_backups,
    list_collections,
    list_jobs,
)
from nopokedb.cli.serve import serve as serve_command
from nopokedb.rpc import nopokedb_pb2 as pb
from nopokedb.rpc.methods import SERVICE
from nopokedb.server.refusals import ConflictError, NoSuchThingError
from nopokedb.server.rest.routes import ROUTES

from .process import ServerProcess, until

ROOT = Path(__file__).parent.parent.parent
DIM = 4
NDJSON = {"content-type": "application/x-ndjson"}


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    return [{"id": n, "vector": [n + 1, 0, 0, 1], "metadata": {"n": n}} for n in range(start, stop)]


def lines(records: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


@pytest.fixture
def docs(shared: ServerProcess, request: pytest.FixtureRequest) -> Iterator[str]:
    """A collection with the records 0 to 9."""
    name = f"/{request.node.originalname[:60]}"
    shared.call("PUT", name, {"dim": DIM})
    shared.call("POST", f"{name}/records", {"records": rows(0, 10)})
    yield name
    shared.call("DELETE", name)


def ended(server: ServerProcess, job: dict[str, Any]) -> dict[str, Any]:
    """The job, once it has ended."""
    url = f"/v1/jobs/{job['id']}"
    until(lambda: server.client.get(url).json()["state"] in ("done", "failed"))
    return server.client.get(url).json()  # type: ignore[no-any-return]


def test_backups_are_jobs_with_names(shared: ServerProcess, docs: str, tmp_path: Path) -> None:
    """202 and a job; the file restores; the next one continues it; a name is taken once."""
    made = ended(shared, shared.call("POST", f"{docs}/backup", {"name": "one"}, status=202))
    assert made["state"] == "done" and made["result"]["count"] == 10 and made["result"]["path"] == "one"
    shared.call("POST", f"{docs}/records", {"records": rows(10, 12)})
    more = ended(shared, shared.call("POST", f"{docs}/backup", {"name": "two", "since": "one"}, status=202))
    assert more["result"]["count"] == 2
    assert shared.call("POST", f"{docs}/backup", {"name": "two"}, status=409)["error"]["type"] == "ConflictError"
    listed = shared.call("GET", f"{docs}/backups")["backups"]
    assert [item["name"] for item in listed] == ["one", "two"]
    folder = shared.log.with_name("collections") / ".backups" / docs.strip("/")
    assert nopokedb.restore([folder / "one.npkb", folder / "two.npkb"], tmp_path / "again") == 12


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_backups_are_listed_and_dropped(shared: ServerProcess, docs: str, kind: str, tmp_path: Path) -> None:
    """By functions that take an address; jobs too, those of one collection or all that the key may see."""
    name = docs.strip("/")
    address = f"{shared.addresses[kind]}/{name}"
    assert list_backups(address) == []
    with NoPokeDB(path=address) as db:
        sizes = [db.backup("one").size_bytes, db.backup("two", since="one").size_bytes]
        db.check()
    assert list_backups(address) == [StoredBackup("one", sizes[0]), StoredBackup("two", sizes[1])]
    jobs = list_jobs(address)[:3]
    assert [(job.kind, job.collection, job.state, job.error) for job in jobs] == [
        ("check", name, "done", None),
        *[("backup", name, "done", None)] * 2,
    ]
    assert jobs[0].result == [] and jobs[1].result["path"] == "two"
    assert all(job.ended_at is not None and job.created_at <= job.ended_at for job in jobs)
    assert {job.id for job in jobs} <= {job.id for job in list_jobs(shared.addresses[kind])}
    drop_backup(address, "two")
    with pytest.raises(NoSuchThingError, match="'two', which does not exist"):
        drop_backup(address, "two")
    for wrong in ("../one", "", "one.npkb/", 1):
        with pytest.raises((InvalidInputError, NoSuchThingError)):
            drop_backup(address, wrong)  # type: ignore[arg-type]
    drop_collection(shared.addresses[kind], name)
    assert [item.name for item in list_backups(address)] == ["one"], "backups outlive their collection"
    drop_backup(address, "one")
    assert list_backups(address) == []
    shared.call("PUT", docs, {"dim": DIM})  # for the fixture to drop
    calls: list[Callable[[Path], object]] = [list_backups, list_jobs, lambda path: drop_backup(path, "one")]
    for call in calls:
        with pytest.raises(NotSupportedError, match="address of a server"):
            call(tmp_path)
    with pytest.raises(InvalidInputError):
        list_backups(shared.addresses[kind])


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_backups_are_restored_to_a_new_collection(shared: ServerProcess, docs: str, kind: str) -> None:
    """Under its own name once that is free, or under another; whole, and never over what is there."""
    name, address = docs.strip("/"), shared.addresses[kind]
    with NoPokeDB(path=address, collection=name) as db:
        for made, record in (("full", rows(0, 10)[3]), ("more", rows(50, 51)[0])):
            db.upsert(record["id"], record["vector"], {"in": made})
            db.backup(made, since=None if made == "full" else "full")
        content = [record.metadata for record in db.scan()]
    for wrong, error in (
        ({"source": "absent"}, NoPokeError),
        ({"source": "../full"}, InvalidInputError),
        ({"source": []}, InvalidInputError),
        ({"source": "full", "backup_of": "../x"}, InvalidInputError),
        ({"source": "more"}, ArchiveError),
        ({"source": ["more", "full"]}, ArchiveError),
    ):
        with pytest.raises(error, match="expected"):
            nopokedb.restore(path=f"{address}/{name}-again", **({"backup_of": name} | wrong))  # type: ignore[arg-type]
        assert f"{name}-again" not in list_collections(address)
    with pytest.raises(NoPokeError, match="which exists or"):
        nopokedb.restore("full", f"{address}/{name}")
    assert nopokedb.restore(["full", "more"], f"{address}/{name}-again", backup_of=name) == 11
    with NoPokeDB(path=address, collection=f"{name}-again") as again:
        assert [record.metadata for record in again.scan()] == content and again.check() == []
        assert again.add([1, 1, 1, 1]) == 51
    for gone in (name, f"{name}-again"):
        drop_collection(address, gone)
    assert nopokedb.restore("full", f"{address}/{name}") == 10
    assert shared.call("GET", f"{docs}/records/3")["metadata"] == {"in": "full"}
    for left in (shared.log.with_name("collections") / ".backups" / name).iterdir():
        left.unlink()


def test_one_restores_at_a_time(serve: Callable[..., ServerProcess]) -> None:
    """While a collection is being restored nobody else makes one of that name; one of two wins, and is whole."""
    server = serve()
    with NoPokeDB(path=server.url, collection="a", dim=DIM) as db:
        db.add_many(np.random.default_rng(0).standard_normal((5_000, DIM)), [{"n": n} for n in range(5_000)])
        db.backup("one")
    body = {"backups": ["one"], "backup_of": "a"}
    answers = [server.request("POST", "/b/restore", body) for _ in range(4)]
    made = server.request("PUT", "/b", {"dim": 2}).status_code
    ends = [ended(server, answer.json()) for answer in answers if answer.status_code == 202]
    won = [job for job in ends if job["state"] == "done"]
    refused = [answer.json() for answer in answers if answer.status_code != 202]
    refused += [job for job in ends if job["state"] == "failed"]
    assert all(item["error"]["type"] == "ConflictError" for item in refused) and len(won) + len(refused) == 4, refused
    assert (made, len(won)) in ((409, 1), (201, 0))
    assert server.call("POST", "/b/count") == {"count": 5_000 if won else 0}


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_no_backup_is_deleted_while_one_is_restored(serve: Callable[..., ServerProcess], kind: str) -> None:
    """409, or ALREADY_EXISTS, as long as a restore waits or runs, and the file stays; afterwards it goes."""
    server = serve()
    with NoPokeDB(path=server.url, collection="a", dim=DIM) as db:
        db.add_many(np.random.default_rng(0).standard_normal((5_000, DIM)))
        size = db.backup("one").size_bytes
    body = {"backups": ["one"], "backup_of": "a"}
    jobs = [server.call("POST", f"/b{n}/restore", body, status=202) for n in range(12)]
    with pytest.raises(ConflictError, match="no restore to wait or run"):
        drop_backup(f"{server.addresses[kind]}/a", "one")
    if kind == "rest":
        assert server.call("DELETE", "/a/backups/one", status=409)["error"]["type"] == "ConflictError"
    else:
        with grpc.insecure_channel(server.addresses["grpc"].removeprefix("grpc://")) as channel:
            drop = channel.unary_unary(f"/{SERVICE}/DropBackup", pb.NameRequest.SerializeToString)
            with pytest.raises(grpc.RpcError) as refused:
                drop(pb.NameRequest(collection="a", name="one"), timeout=30)
            assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    last = server.client.get(f"/v1/jobs/{jobs[-1]['id']}").json()["state"]
    assert last in ("waiting", "running"), "all was asked while restores waited"
    assert list_backups(f"{server.addresses[kind]}/a") == [StoredBackup("one", size)]
    assert [ended(server, job)["state"] for job in jobs] == ["done"] * 12
    assert server.call("POST", "/b11/count") == {"count": 5_000}
    drop_backup(f"{server.addresses[kind]}/a", "one")
    assert list_backups(f"{server.addresses[kind]}/a") == []


def test_check_compact_and_optimize_are_jobs(shared: ServerProcess, docs: str) -> None:
    """Each is begun and asked about."""
    shared.call("POST", f"{docs}/records/delete", {"ids": [1, 2]})
    for kind in ("check", "compact", "optimize"):
        job = ended(shared, shared.call("POST", f"{docs}/{kind}", status=202))
        assert (job["kind"], job["state"], job["progress"]) == (kind, "done", 1.0), job
    assert shared.client.get("/v1/jobs/nothing").status_code == 404
    assert {job["kind"] for job in shared.client.get("/v1/jobs").json()["jobs"]} >= {"check", "compact", "optimize"}
    for kind in ("backup", "check", "compact", "optimize", "import"):
        body = {"name": "x"} if kind == "backup" else None
        headers = NDJSON if kind == "import" else {}
        answer = shared.request("POST", f"/absent/{kind}", body, headers=headers)
        assert answer.status_code == 404, kind


def test_lines_are_written_as_they_come(shared: ServerProcess, docs: str) -> None:
    """Batches are visible before the stream ends; a wrong line ends it there, and says what is written."""
    url = f"/v1/collections{docs}/records?batch_size=10"

    def stream() -> Iterator[bytes]:
        # More than the server gathers before a thread gets it.
        yield lines([record | {"text": "x" * 50_000} for record in rows(100, 130)])
        until(lambda: shared.call("POST", f"{docs}/count")["count"] >= 20)
        yield lines(rows(130, 145))[:-1]

    assert shared.client.post(url, content=stream(), headers=NDJSON).json() == {"count": 45}
    assert shared.call("POST", f"{docs}/count") == {"count": 55}
    wrong = lines(rows(200, 225)) + b'{"id": 1, "vektor": []}\n'
    answer = shared.client.post(url, content=wrong, headers=NDJSON)
    assert answer.status_code == 422 and "line 26" in answer.text and "the 20 records" in answer.text
    answer = shared.client.post(url, content=lines(rows(0, 1)), headers=NDJSON)
    assert answer.status_code == 409
    upserted = shared.client.post(f"{url}&mode=upsert", content=lines(rows(0, 10)), headers=NDJSON)
    assert upserted.json() == {"count": 10}


@pytest.mark.parametrize("way", ["records", "import"])
@pytest.mark.parametrize("kind", ["parquet", "arrow.stream", "arrow.file", "ndjson", "csv"])
def test_files_of_records(shared: ServerProcess, docs: str, way: str, kind: str) -> None:
    """Each format, at once or as a job: the same records; columns without a part of their own become metadata."""
    values = np.random.default_rng(1).standard_normal((50, DIM)).astype(np.float32)
    table = pa.table({"id": list(range(100, 150)), "vector": list(values), "title": [f"t{n}" for n in range(50)]})
    out = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, out)
    elif kind == "csv":
        text = "id,vector,title\n" + "".join(f'{n + 100},"{values[n].tolist()}",t{n}\n' for n in range(50))
        out.write(text.encode())
    elif kind == "ndjson":
        out.write(
            lines([{"id": n + 100, "vector": values[n].tolist(), "metadata": {"title": f"t{n}"}} for n in range(50)])
        )
    else:
        make = pa.ipc.new_stream if kind == "arrow.stream" else pa.ipc.new_file
        with make(out, table.schema) as writer:
            writer.write_table(table)
    names = {"ndjson": "application/x-ndjson", "csv": "text/csv"}
    headers = {"content-type": names.get(kind, f"application/vnd.apache.{kind}")}
    url = f"/v1/collections{docs}/{way}?batch_size=20"
    answer = shared.client.post(url, content=out.getvalue(), headers=headers)
    if way == "import":
        assert answer.status_code == 202, answer.text
        job = ended(shared, answer.json())
        assert job["state"] == "done" and job["result"] == {"count": 50}, job
    else:
        assert answer.json() == {"count": 50}
    found = shared.call("GET", f"{docs}/records/149")
    assert found["metadata"] == {"title": "t49"}
    assert np.array_equal(np.float32(found["vector"]), values[49])
    assert not list((shared.log.with_name("collections") / ".uploads").iterdir())


def test_a_file_that_is_none_is_refused(shared: ServerProcess, docs: str) -> None:
    headers = {"content-type": "application/vnd.apache.parquet"}
    answer = shared.client.post(f"/v1/collections{docs}/records", content=b"junk", headers=headers)
    assert answer.status_code == 422 and answer.json()["error"]["type"] == "ArchiveError"
    assert str(shared.log.parent) not in answer.text


# --- looking at the server ------------------------------------------------------------------------------------


def test_numbers_for_prometheus(shared: ServerProcess, docs: str) -> None:
    """They count what was done; the format is one that Prometheus' own parser reads."""
    for _ in range(3):
        shared.call("POST", f"{docs}/query", {"vector": [1, 0, 0, 1]})
    shared.call("POST", f"{docs}/query", {"vector": [1]}, status=422)
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(shared.client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.values()))] = sample.value
    name = docs.strip("/")
    assert found["nopokedb_requests_total"][("200", "query", "rest")] >= 3
    assert found["nopokedb_requests_total"][("422", "query", "rest")] >= 1
    assert found["nopokedb_request_seconds_count"][("query", "rest")] >= 4
    assert found["nopokedb_records"][(name,)] == 10
    assert found["nopokedb_sync_count_total"][(name,)] >= 1
    assert found["nopokedb_sync_seconds_total"][(name,)] > 0
    assert found["nopokedb_cache_hits_total"][(name,)] + found["nopokedb_cache_misses_total"][(name,)] >= 15
    assert found["nopokedb_collections_open"][()] >= 1


def test_the_openapi_document_has_every_route(shared: ServerProcess) -> None:
    """Each with its parameters, body and errors; every reference leads somewhere."""
    document = shared.client.get("/openapi.json").json()
    for route in ROUTES:
        path = route.path.replace(":path", "")
        operation = document["paths"][path][route.method.lower()]
        named = {item["name"] for item in operation.get("parameters", ())}
        assert named == {*re.findall(r"{(\w+)}", path), *route.options}, path
        assert ("requestBody" in operation) == (route.body is not None), path
        assert "default" in operation["responses"] and operation["summary"], path
    for name in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in document["components"]["schemas"], name
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


def test_the_page_of_documents_loads_nothing(shared: ServerProcess) -> None:
    """No script, no frame, no address but its own; a policy that would forbid the rest."""
    answer = shared.client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    tags: list[tuple[str, dict[str, str | None]]] = []

    class Collector(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(attrs)))

    Collector().feed(answer.text)
    assert len(tags) > 100 and not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "base"}
    assert {attrs.get("href") for tag, attrs in tags if tag == "a"} == {"/openapi.json"}
    assert "//" not in re.sub(r"<pre>.*?</pre>", "", answer.text, flags=re.S)


def test_spans_of_opentelemetry(serve: Callable[..., ServerProcess]) -> None:
    """Asked for, each request is a span below the caller's; printed here, sent elsewhere by OTEL_* variables."""
    server = serve("--opentelemetry", environment={"OTEL_TRACES_EXPORTER": "console"})
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    assert server.request("POST", "/absent/count", {}, headers=headers).status_code == 404
    server.process.terminate()
    assert server.process.stdout is not None
    printed = server.process.stdout.read()
    span = json.loads(printed[printed.index("{") : printed.rindex("}") + 1])
    assert span["name"] == "count" and span["context"]["trace_id"] == f"0x{trace}"
    assert span["parent_id"] == "0xb7ad6b7169203331"
    assert span["attributes"]["http.response.status_code"] == 404


def test_the_document_of_the_server_tells_the_truth(serve: Callable[..., ServerProcess]) -> None:
    """docs/server.md has each route, and its example does what it says."""
    text = (ROOT / "docs" / "server.md").read_text()
    table = text[text.index("## Routes") : text.index("## Errors")]
    for route in ROUTES:
        tail = route.path.replace("/v1/collections/{name}", "").replace(":path", "").replace("{snapshot}", "{s}")
        tail = tail.replace("{job}", "{id}").replace("{backup}", "{b}")
        assert tail in table and route.method in table, route.path
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed, with which the example is written")
    example = text[text.index("curl") : text.index("```", text.index("curl"))]
    script = example.replace("localhost:7331", serve().url).replace("curl", "curl -sS")
    run = subprocess.run(["bash", "-e", "-c", script], capture_output=True, text=True, check=True)
    assert '{"ids":[1]}' in run.stdout and '"metadata":{"year":2024}' in run.stdout, run.stdout


def test_what_is_deployed_fits(shared: ServerProcess, docs: str) -> None:
    """The dashboard asks for numbers that there are; the unit and the image set variables that are options."""
    shared.call("POST", f"{docs}/query", {"vector": [1, 0, 0, 1]})
    there = set(re.findall(r"^# TYPE (\w+)", shared.client.get("/metrics").text, re.M))
    panels = json.loads((ROOT / "deploy" / "grafana.json").read_text())["panels"]
    for target in (target for panel in panels for target in panel["targets"]):
        for name in re.findall(r"nopokedb_\w+", target["expr"]):
            assert {name, name.removesuffix("_bucket")} & there, name
    options = {f"NOPOKEDB_{option.name.upper()}" for option in serve_command.params if option.name}
    for file in ("Dockerfile", "nopokedb.service"):
        for name in re.findall(r"NOPOKEDB_\w+", (ROOT / "deploy" / file).read_text()):
            assert name in options, f"{file} sets {name}"


# --- opening and closing --------------------------------------------------------------------------------------


def test_collections_take_turns_within_the_limit(serve: Callable[..., ServerProcess]) -> None:
    """With room for two, five are used as if all were open; what has to go was used longest ago."""
    server = serve("--max-open", "2")
    for n in range(5):
        server.call("PUT", f"/c{n}", {"dim": DIM})
        server.call("POST", f"/c{n}/records", {"records": rows(n, n + 1)})
    for _ in range(2):
        for n in range(5):
            assert server.call("POST", f"/c{n}/query", {"vector": [1, 0, 0, 1]})["hits"][0]["id"] == n
    metrics = server.client.get("/metrics").text
    assert re.search(r"^nopokedb_collections_open 2", metrics, re.M), metrics
    assert 'collection="c4"' in metrics and 'collection="c0"' not in metrics
    server.call("DELETE", "/c0")
    assert server.call("GET", "")["collections"] == ["c1", "c2", "c3", "c4"]
    assert server.call("POST", "/c0/count", status=404)["error"]["type"] == "CollectionNotFoundError"
    assert server.stop() == 0


def test_a_collection_that_another_process_writes(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """503 as long as it does; the server's own lock keeps others out as well."""
    with NoPokeDB(dim=DIM, path=tmp_path / "collections", collection="c") as db:
        db.add([1, 0, 0, 0])
        server = serve()
        assert server.call("POST", "/c/count", status=503)["error"]["type"] == "DatabaseLockedError"
    assert server.call("POST", "/c/count") == {"count": 1}
    with pytest.raises(nopokedb.DatabaseLockedError):
        NoPokeDB(path=tmp_path / "collections", collection="c")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 12 MB, with a file of 6 MB on it that can go."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small file system is refused here: {mounted.stderr.strip()}")
    try:
        (folder / "ballast").write_bytes(b"x" * 6 * 2**20)
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_and_room_again(full_disk: Path) -> None:
    """507, /readyz red, reads go on; with room again it mends itself, and nothing acknowledged is lost."""
    server = ServerProcess(full_disk / "collections", "--min-free-bytes", "300000")
    try:
        server.call("PUT", "/c", {"dim": DIM})
        assert server.client.get("/readyz").status_code == 200
        count = 0
        while True:
            records = [record | {"text": "x" * 50_000} for record in rows(count, count + 5)]
            answer = server.request("POST", "/c/records", {"records": records})
            if answer.status_code != 200:
                break
            count += 5
        assert answer.status_code == 507, answer.text
        assert server.client.get("/readyz").status_code == 503
        assert server.client.get("/healthz").status_code == 200
        assert server.request("POST", "/c/records", {"records": rows(10_000, 10_001)}).status_code == 507
        assert server.call("POST", "/c/query", {"vector": [1, 0, 0, 1], "k": 1})["hits"][0]["id"] == 0
        (full_disk / "ballast").unlink()
        until(lambda: server.client.get("/readyz").status_code == 200)
        server.call("POST", "/c/records", {"records": rows(20_000, 20_001)})
        found = server.call("POST", "/c/records/get", {"ids": [*range(count), 20_000], "include": []})["records"]
        assert None not in found
    finally:
        assert server.stop() == 0

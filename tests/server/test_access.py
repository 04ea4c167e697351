"""Who may do what: every route with every kind of key, foreign pages, and what happens before a key is known."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from nopokedb import NoPokeDB, list_collections
from nopokedb.cli.application import run
from nopokedb.errors import InvalidInputError
from nopokedb.server.access import ROLES
from nopokedb.server.keys import Keys, create_key, read_keys, revoke_key
from nopokedb.server.refusals import ConflictError, ForbiddenError, NoSuchThingError, UnauthorizedError
from nopokedb.server.rest.routes import ROUTES

from .process import ServerProcess, until

BOOT = "an-admin-key-for-the-tests"
ADDRESSES = [
    *((route.method, route.path, route.role) for route in ROUTES),
    ("GET", "/openapi.json", "read"),
    ("GET", "/docs", "read"),
    ("GET", "/v1/nothing", "none"),
    ("GET", "/consolex", "none"),
    ("GET", "/healthz/", "none"),
]


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, dict[str, str]]]:
    """A server with a key of each role, one for the collection `mine` only, and an admin key in the environment."""
    folder = tmp_path_factory.mktemp("keyed")
    file = folder / "keys.json"
    keys = {role: create_key(file, role, role) for role in ROLES}
    keys["mine"] = create_key(file, "mine", "admin", ["mine"])
    revoked = create_key(file, "revoked", "admin")
    revoke_key(file, "revoked")
    server = ServerProcess(
        folder / "collections", "--keys", str(file), environment={"NOPOKEDB_API_KEY": BOOT}, key=BOOT
    )
    for name in ("docs", "mine"):
        server.call("PUT", f"/{name}", {"dim": 2})
    yield server, keys | {"boot": BOOT, "bad": "npk_" + "A" * 43, "revoked": revoked}
    assert server.stop() == 0
    log = server.log.read_text()
    for name, key in keys.items():
        assert key not in log and key not in file.read_text(), f"the key {name} was written down"
    assert BOOT not in log


def asked(server: ServerProcess, method: str, path: str, key: str | None) -> httpx.Response:
    path = re.sub(r"\{name\}", "docs", path)
    path = re.sub(r"\{[a-z]+(:path)?\}", "x", path)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    # A body that no route takes: whatever is allowed fails harmlessly.
    return server.bare.request(method, path, headers=headers, json={"nothing": 1})


@pytest.mark.parametrize(("method", "path", "role"), ADDRESSES)
def test_every_route_with_every_key(
    keyed: tuple[ServerProcess, dict[str, str]], method: str, path: str, role: str
) -> None:
    """Without a good key nothing is answered but the open addresses; with one, what its role may do."""
    server, keys = keyed
    if method == "DELETE" and path == "/v1/collections/{name}":
        path = "/v1/collections/absent"
    for name in (None, "bad", "revoked"):
        status = asked(server, method, path, None if name is None else keys[name]).status_code
        assert (status == 401) == (role != "open"), (name, status)
    if role in ("open", "none"):
        return
    for name in (*ROLES, "boot"):
        status = asked(server, method, path, keys[name]).status_code
        allowed = name == "boot" or ROLES.index(name) >= ROLES.index(role)  # type: ignore[arg-type]
        assert (status not in (401, 403)) == allowed, (name, status)
    status = asked(server, method, path, keys["mine"]).status_code
    free = path in ("/v1/collections", "/v1/jobs", "/v1/jobs/{job}")  # these show what the key may see
    assert (status == 403) == (not free), status


def test_a_key_for_some_collections_sees_no_others(keyed: tuple[ServerProcess, dict[str, str]]) -> None:
    """Neither in the list nor by name, nor the jobs of others."""
    server, keys = keyed
    headers = {"authorization": f"Bearer {keys['mine']}"}
    job = server.call("POST", "/docs/check")
    assert server.bare.get("/v1/collections", headers=headers).json() == {"collections": ["mine"]}
    assert server.bare.get("/v1/collections/mine", headers=headers).status_code == 200
    assert server.bare.get(f"/v1/jobs/{job['id']}", headers=headers).status_code == 404
    assert all(item["collection"] == "mine" for item in server.bare.get("/v1/jobs", headers=headers).json()["jobs"])


def raw(server: ServerProcess, request: bytes) -> bytes:
    """The beginning of the answer to bytes on the wire."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as sent:
        sent.sendall(request)
        return sent.recv(65536)


def test_nothing_is_read_before_the_key_is_known(keyed: tuple[ServerProcess, dict[str, str]]) -> None:
    """A request without a key is refused although its body never comes."""
    server, _ = keyed
    head = b"POST /v1/collections/docs/records HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000000\r\n"
    assert raw(server, head + b"\r\n").startswith(b"HTTP/1.1 401 ")
    assert raw(server, head + b"authorization: Basic Og==\r\n\r\n").startswith(b"HTTP/1.1 401 ")
    assert raw(server, head + b"authorization: Bearer \xff\r\n\r\n").startswith(b"HTTP/1.1 401 ")


def test_foreign_hosts_and_origins(shared: ServerProcess) -> None:
    """DNS rebinding and pages of other sites get 403, also where no keys are set."""
    port = urlsplit(shared.url).port
    for host, status in (
        (f"127.0.0.1:{port}", 200),
        (f"localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]", 200),
        ("evil.example", 403),
        (f"evil.example:{port}", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.0.2.1", 403),
        ("", 403),
    ):
        assert shared.bare.get("/v1/collections", headers={"host": host}).status_code == status, host
    host = f"127.0.0.1:{port}"
    for origin, status in (
        (f"http://{host}", 200),
        ("http://evil.example", 403),
        ("null", 403),
        (f"http://localhost:{port}", 403),
        ("x", 403),
    ):
        answer = shared.bare.get("/healthz", headers={"origin": origin})
        assert answer.status_code == status, origin
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_keys_are_read_again_on_sighup(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """A new key is good and a revoked one is not, without a restart; a damaged file changes nothing."""
    file = tmp_path / "keys.json"
    old = create_key(file, "old", "admin")
    server = serve("--keys", str(file), key=old)
    new = create_key(file, "new", "admin")
    revoke_key(file, "old")

    def status(key: str) -> int:
        return server.bare.get("/v1/collections", headers={"authorization": f"Bearer {key}"}).status_code

    assert (status(old), status(new)) == (200, 401)
    server.process.send_signal(signal.SIGHUP)
    until(lambda: status(new) == 200)
    assert status(old) == 401
    file.write_text("damaged")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: "keys_not_reloaded" in server.log.read_text())
    assert status(new) == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_for_others_needs_keys(tmp_path: Path, host: str) -> None:
    """The server refuses to start, before it touches the folder, and says what to do."""
    command = [sys.executable, "-m", "nopokedb", "serve", str(tmp_path / "c"), "--host", host, "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NOPOKEDB_")}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    if "Address family" in ended.stderr:
        pytest.skip("this machine has no IPv6")
    assert ended.returncode == 2 and "expected keys" in ended.stderr and "nopokedb keys create" in ended.stderr
    assert not (tmp_path / "c").exists()


def test_with_keys_any_address_will_do(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """Called by an address, or by a name that it was told; never by another name."""
    key = create_key(tmp_path / "keys.json", "a", "admin")
    server = serve("--host", "0.0.0.0", "--keys", str(tmp_path / "keys.json"), "--allow-host", "db.example", key=key)
    for host, status in (("192.0.2.1:7331", 200), ("db.example", 200), ("evil.example", 403)):
        headers = {"authorization": f"Bearer {key}", "host": host}
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert server.bare.get(f"{url}/v1/collections", headers=headers).status_code == status


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_commands_send_the_key_of_the_environment(
    keyed: tuple[ServerProcess, dict[str, str]],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They can do what the key can: nothing without one. A key that is given goes first."""
    server, keys = keyed
    address = f"{server.addresses[kind]}/docs"
    monkeypatch.delenv("NOPOKEDB_API_KEY", raising=False)
    assert run(["info", address]) != 0 and "expected a key" in capsys.readouterr().err
    monkeypatch.setenv("NOPOKEDB_API_KEY", keys["read"])
    assert run(["info", address, "--json"]) == 0
    with NoPokeDB(path=address) as db, pytest.raises(ForbiddenError):
        db.save()
    with NoPokeDB(path=address, api_key=keys["admin"]) as db:
        db.save()
    assert "docs" in list_collections(server.addresses[kind])


def test_the_keys_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Made for its owner only, with hashes in it; every command does what it says; nonsense is refused."""
    file = tmp_path / "keys.json"
    assert run(["keys", "create", str(file), "a", "--role", "write", "--collection", "x", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert file.stat().st_mode & 0o777 == 0o600 and made["key"] not in file.read_text()
    assert run(["keys", "create", str(file), "a"]) == 2
    assert run(["keys", "revoke", str(file), "b"]) == 5
    keys = Keys(file, None)
    caller = keys.caller(b"Bearer " + made["key"].encode())
    assert (caller.name, caller.role, caller.collections) == ("a", "write", frozenset({"x"}))
    for wrong in (None, b"", b"Bearer", b"Bearer x", b"Basic " + made["key"].encode()):
        with pytest.raises(UnauthorizedError):
            keys.caller(wrong)
    with pytest.raises(ConflictError):
        create_key(file, "a", "read")
    with pytest.raises(NoSuchThingError):
        revoke_key(file, "b")
    for name, role in (("../x", "read"), ("", "read"), ("b", "root")):
        with pytest.raises(InvalidInputError):
            create_key(file, name, role)
    for damaged in ("[]", "{", '{"version": 2, "keys": []}', '{"version": 1, "keys": [{}]}'):
        file.write_text(damaged)
        with pytest.raises(InvalidInputError):
            read_keys(file)
    with pytest.raises(InvalidInputError):
        Keys(None, "short")

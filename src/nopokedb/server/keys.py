"""API keys: a file of hashes, read when the server starts and again on SIGHUP.

A key is `npk_` and 32 random bytes in base64. With that much chance in it, one SHA-256 is all that a hash needs: there
are no likely keys to try first. (Slow hashes are for passwords that people choose, and would be paid by every request.)

The file is JSON: {"version": 1, "keys": [{"name", "role", "collections", "sha256", "created_at"}]}. Names are unique.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from nopokedb.errors import InvalidInputError
from nopokedb.server.access import ANYBODY, ROLES, Caller, Role
from nopokedb.server.refusals import ConflictError, NoSuchThingError, UnauthorizedError

_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_MIN_API_KEY = 16


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key as the file has it."""

    name: str
    role: Role
    collections: tuple[str, ...] | None
    """The only ones it is good for; None: all."""
    sha256: str
    created_at: str


class Keys:
    """The keys that are good at the moment."""

    def __init__(self, file: Path | None, api_key: str | None) -> None:
        self._file = file
        if api_key is not None and len(api_key) < _MIN_API_KEY:
            raise InvalidInputError(
                f"expected NOPOKEDB_API_KEY to have at least {_MIN_API_KEY} characters, got {len(api_key)}; "
                "`nopokedb keys create` makes good ones"
            )
        self._api_key = None if api_key is None else _hash(api_key.encode())
        self._callers: list[tuple[bytes, Caller]] = []
        self.required = file is not None or api_key is not None
        self.reload()

    def reload(self) -> int:
        """Read the file again; how many keys there are. A file that cannot be read leaves the keys as they are."""
        callers = [
            (
                bytes.fromhex(key.sha256),
                Caller(key.name, key.role, None if key.collections is None else frozenset(key.collections)),
            )
            for key in (read_keys(self._file) if self._file is not None else [])
        ]
        if self._api_key is not None:
            callers.append((self._api_key, Caller("NOPOKEDB_API_KEY", "admin")))
        self._callers = callers
        return len(callers)

    def caller(self, authorization: bytes | None) -> Caller:
        """Whose key it is. Every key is compared, each in constant time."""
        if not self.required:
            return ANYBODY
        if authorization is None:
            raise UnauthorizedError("expected a key (Authorization: Bearer KEY), got none")
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise UnauthorizedError("expected a key (Authorization: Bearer KEY), got another kind of authorization")
        digest = _hash(key.strip())
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise UnauthorizedError("expected a key of this server, got one that is not, or not any more")
        return found


def read_keys(file: Path) -> list[StoredKey]:
    """The keys of a file. One that is missing has none, so that a first key can be made."""
    try:
        document = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        return []
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(
            f"expected a file made by `nopokedb keys`, got {file}, which is no JSON: {error}"
        ) from None
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise InvalidInputError(f"expected a file made by `nopokedb keys`, version {_VERSION}, got {file}")
    return [_stored(entry, file) for entry in document["keys"]]


def create_key(file: Path, name: str, role: str, collections: Sequence[str] = ()) -> str:
    """Make a key, which is told only now, and keep its hash in the file."""
    if not _NAME.fullmatch(name):
        raise InvalidInputError(f"expected a name of 1 to 64 letters, digits, '.', '_' or '-', got {name!r:.100}")
    if role not in ROLES:
        raise InvalidInputError(f"expected a role of {', '.join(ROLES)}, got {role!r:.80}")
    keys = read_keys(file)
    if any(key.name == name for key in keys):
        raise ConflictError(f"expected a name that no key of {file} has, got {name!r}; revoke that one first")
    secret = "npk_" + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    created = StoredKey(
        name,
        role,
        tuple(collections) or None,
        _hash(secret.encode()).hex(),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _write_keys(file, [*keys, created])
    return secret


def revoke_key(file: Path, name: str) -> None:
    """Forget a key. Running servers forget it on SIGHUP."""
    keys = read_keys(file)
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        listed = ", ".join(key.name for key in keys) or "none"
        raise NoSuchThingError(f"expected the name of a key of {file} ({listed}), got {name!r:.100}")
    _write_keys(file, left)


def _write_keys(file: Path, keys: list[StoredKey]) -> None:
    """Replace the file, whole or not at all, readable by its owner only."""
    document = {"version": _VERSION, "keys": [asdict(key) for key in keys]}
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)


def _stored(entry: Any, file: Path) -> StoredKey:
    try:
        collections = entry["collections"]
        key = StoredKey(
            entry["name"],
            entry["role"],
            None if collections is None else tuple(collections),
            entry["sha256"],
            entry["created_at"],
        )
        if key.role in ROLES and len(bytes.fromhex(key.sha256)) == hashlib.sha256().digest_size:
            return key
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"expected a file made by `nopokedb keys`, got {file} with a wrong entry ({error})"
        ) from None
    raise InvalidInputError(f"expected a file made by `nopokedb keys`, got {file} with a wrong role or hash")


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()

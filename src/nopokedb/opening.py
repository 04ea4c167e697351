"""From the arguments of `NoPokeDB` to an open engine: which folder, database or server, which settings, which model."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from nopokedb.embedding.embedder import Embedder
from nopokedb.embedding.names import make_embedder, stored_embedder
from nopokedb.engine import Engine
from nopokedb.errors import InvalidInputError, NotSupportedError
from nopokedb.postgres.address import Database, is_postgres, parse_database
from nopokedb.records import MAX_DIM, Durability, IndexKind, Space, Vectors, check_choice, check_int, shown
from nopokedb.remote.address import Address, is_address, parse_address

Embed: TypeAlias = Callable[[Sequence[str]], Vectors]
"""Turns n texts into vectors of shape (n, dim)."""
Place: TypeAlias = Path | Database | Address
"""Where a collection is: which engine it has follows from it."""
_Named = TypeVar("_Named", Database, Address)

TIMEOUT_S = 30.0
_MAX_TIMEOUT_S = 86_400.0
_MAX_M, _MAX_EF_CONSTRUCTION = 256, 10_000
_COLLECTION_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def check_arguments(
    dim: object,
    max_elements: object,
    max_memory: object,
    space: object,
    index: object,
    durability: object,
    M: object,
    ef_construction: object,
) -> int | None:
    """What can be judged without a look at the folder; the dimension, if it is given."""
    checked = None if dim is None else check_int("dim", dim, 1, MAX_DIM)
    if max_elements is not None:
        check_int("max_elements", max_elements, 0, 2**62)
    if max_memory is not None:
        check_int("max_memory", max_memory, 0, 2**62)
    check_choice("space", space, Space)
    check_choice("index", index, IndexKind)
    check_choice("durability", durability, Durability)
    check_int("M", M, 2, _MAX_M)
    check_int("ef_construction", ef_construction, 1, _MAX_EF_CONSTRUCTION)
    return checked


@dataclass(frozen=True, slots=True)
class Opening:
    """What a handle is opened with, checked as far as that goes without a look at the collection."""

    dim: int | None
    embed: object
    """The name of a model, or a callable, or None."""
    fields: list[tuple[str, ...]]
    settings: dict[str, Any]
    durability: str
    read_only: bool
    max_memory: int | None
    max_elements: int | None
    api_key: str | None
    timeout_s: float
    distributed: bool


def resolve_place(path: str | Path, collection: str | None) -> Place:
    """Where the collection is: a folder, a PostgreSQL database, or a server."""
    if is_postgres(path):
        return _with_collection(parse_database(str(path)), collection, "behind a '#' at the end")
    if is_address(path):
        return _with_collection(parse_address(str(path)), collection, "behind the port")
    return resolve_folder(path, collection)


def _with_collection(place: _Named, collection: str | None, where: str) -> _Named:
    """The place with the name that was given in one of the two ways."""
    if bool(place.collection) == (collection is not None):
        given = "both" if collection is not None else "neither"
        raise InvalidInputError(f"expected collection=, or its name {where}, with the address {place}, got {given}")
    return replace(place, collection=check_name(place.collection or collection))


def open_place(place: Place, opening: Opening) -> tuple[Engine, Embed | None]:
    """The engine of a place, and what turns texts into vectors there, where something does."""
    _refuse_pointless(place, opening)
    if isinstance(place, Address):
        from nopokedb.remote.opening import open_remote

        return open_remote(place, opening)
    embedder = None if opening.embed is None else make_embedder(opening.embed)
    if embedder is not None and opening.dim is not None and opening.dim != embedder.dim:
        raise InvalidInputError(
            f"expected dim={embedder.dim}, the dimension of the model {embedder.name!r}, got dim={opening.dim}"
        )
    _check_language(opening.settings["text_language"])
    engine: Engine
    if isinstance(place, Database):
        from nopokedb.postgres.opening import open_postgres

        engine = open_postgres(place, opening, embedder)
    else:
        engine = _open_folder(place, opening, embedder)
    return engine, embedder or stored_embedder(engine.embed_name, engine.embed_fingerprint)


def _refuse_pointless(place: Place, opening: Opening) -> None:
    """Raise for what means nothing at this kind of place."""
    if opening.distributed and not isinstance(place, Database):
        where = "a folder is" if isinstance(place, Path) else "what a server keeps is"
        raise NotSupportedError(f"expected distributed=True only with a PostgreSQL address: {where} on one machine")
    if not isinstance(place, Address):
        refuse_key(opening.api_key)
    if opening.timeout_s != TIMEOUT_S and isinstance(place, Path):
        raise NotSupportedError("expected timeout_s only with the address of a server: a folder waits for none")


def refuse_key(api_key: object) -> None:
    """Raise for a key that nobody would look at."""
    if api_key is not None:
        raise NotSupportedError(
            "expected api_key only with the address of a NoPokeDB server: a folder asks for none, and PostgreSQL has "
            "passwords"
        )


def check_connection(api_key: object, timeout_s: object) -> float:
    """What only servers are asked with; the seconds that a call may wait for one."""
    if api_key is not None and not (isinstance(api_key, str) and api_key.isascii() and api_key.isprintable()):
        raise InvalidInputError(f"expected api_key to be a str of printable ASCII, got {type(api_key).__name__}")
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s <= _MAX_TIMEOUT_S:
        raise InvalidInputError(
            f"expected timeout_s to be a number of seconds above 0, at most {_MAX_TIMEOUT_S:g}, got {shown(timeout_s)}"
        )
    return float(timeout_s)


def _check_language(language: object) -> None:
    from nopokedb.embedded.search.analysis import LANGUAGES

    if language not in LANGUAGES:
        raise InvalidInputError(
            f"expected text_language to be one of {', '.join(map(repr, LANGUAGES))}, got {language!r:.80}"
        )


def _open_folder(folder: Path, opening: Opening, embedder: Embedder | None) -> Engine:
    """The engine for a folder, with its collection created or opened."""
    # Imported here: `import nopokedb` stays quick, native libraries load with the first open.
    from nopokedb.embedded.engine import EmbeddedEngine
    from nopokedb.embedded.migration import migrate
    from nopokedb.embedded.recovery import check_folder, require_collection
    from nopokedb.embedded.storage.manifest import Settings

    dim, settings = opening.dim, dict(opening.settings)
    if not opening.read_only:
        migrate(folder)
    stored = check_folder(folder)
    if stored is not None and embedder is not None:
        embedder.check(stored.settings.embed_name, stored.settings.embed_fingerprint)
    if dim is None:
        if embedder is not None and stored is None:
            dim = embedder.dim
        else:
            stored = stored or require_collection(folder)
            dim = stored.settings.dim
            if settings["space"] == "cosine":
                settings["space"] = stored.settings.space
    if embedder is not None:
        settings |= {"embed_name": embedder.name, "embed_fingerprint": tuple(embedder.fingerprint)}
    return EmbeddedEngine(
        folder,
        settings=Settings(dim, **settings),
        indexed_fields=opening.fields,
        durability=opening.durability,
        read_only=opening.read_only,
        max_memory=opening.max_memory,
    )


def resolve_folder(path: str | Path, collection: str | None) -> Path:
    """The collection's folder. Names are single path components of letters, digits, `.`, `_` and `-`."""
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
        raise InvalidInputError(f"expected path to be a str or a Path, got {type(path).__name__} {path!r:.80}")
    text = str(path)
    if "://" in text:
        raise InvalidInputError(f"expected path to be a folder or the address of a server, got {text!r}")
    if not text or "\0" in text:
        raise InvalidInputError(f"expected path to be a folder, got {text!r}")
    return Path(path) if collection is None else Path(path) / check_name(collection)


def check_name(collection: object) -> str:
    """The name of a collection."""
    if not isinstance(collection, str) or not _COLLECTION_NAME.fullmatch(collection):
        raise InvalidInputError(
            "expected a collection name of 1 to 128 letters, digits, '.', '_' or '-', not starting with '.' or '-', "
            f"got {collection!r:.150}"
        )
    return collection

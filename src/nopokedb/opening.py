"""From the arguments of `NoPokeDB` to an open engine: which folder, which settings, which model."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nopokedb.distribution import install_hint
from nopokedb.embed import Embedder
from nopokedb.engine import Engine
from nopokedb.errors import InvalidInputError, NotSupportedError
from nopokedb.records import MAX_DIM, Durability, IndexKind, Space, check_choice, check_int, shown

if TYPE_CHECKING:
    from nopokedb.postgres.engine import PostgresEngine

TIMEOUT_S = 30.0
_MAX_TIMEOUT_S = 86_400.0
_POSTGRES = ("postgresql://", "postgres://")
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


def open_engine(
    folder: Path,
    dim: int | None,
    embedder: Embedder | None,
    fields: list[tuple[str, ...]],
    settings: dict[str, Any],
    durability: str,
    read_only: bool,
    max_memory: int | None,
) -> Engine:
    """The engine for a path, with its collection created or opened."""
    # Imported here: `import nopokedb` stays quick, native libraries load with the first open.
    from nopokedb.embedded.engine import EmbeddedEngine
    from nopokedb.embedded.migration import migrate
    from nopokedb.embedded.recovery import check_folder, require_collection
    from nopokedb.embedded.search.analysis import LANGUAGES
    from nopokedb.embedded.storage.manifest import Settings

    language = settings["text_language"]
    if language not in LANGUAGES:
        raise InvalidInputError(
            f"expected text_language to be one of {', '.join(map(repr, LANGUAGES))}, got {language!r:.80}"
        )
    if not read_only:
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
        indexed_fields=fields,
        durability=durability,
        read_only=read_only,
        max_memory=max_memory,
    )


def check_timeout(value: object) -> float:
    """Seconds that a call may wait for a server."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MAX_TIMEOUT_S:
        raise InvalidInputError(f"expected timeout_s to be a number above 0, in seconds, got {shown(value)}")
    return float(value)


def is_postgres(path: object) -> bool:
    """Whether the path is the address of a PostgreSQL database."""
    return isinstance(path, str) and path.startswith(_POSTGRES)


def resolve_postgres(path: str | Path, collection: str | None) -> tuple[str, str]:
    """The checked address of a database, and the checked name of a collection in it."""
    require_postgres()
    from nopokedb.postgres.connections import check_uri

    uri, _, name = str(path).rpartition("#")
    if not uri or not _COLLECTION_NAME.fullmatch(name):  # a `#` in a password, or none
        uri, name = str(path), ""
    elif collection is not None:
        raise InvalidInputError(f"expected the collection in the address or as collection=, got {name!r} and another")
    check_uri(uri)
    if not name and collection is None:
        raise InvalidInputError(
            "expected collection= beside a PostgreSQL address, or #collection at its end, got neither"
        )
    return uri, check_name(name or collection)


def require_postgres() -> None:
    """Say how to install the engine where its driver is missing."""
    try:
        import psycopg_pool  # noqa: F401  # needs psycopg itself
    except ImportError as error:
        raise ImportError(f"a PostgreSQL address needs psycopg: {install_hint('postgres')}") from error


def open_postgres(
    uri: str,
    name: str,
    dim: int | None,
    embedder: Embedder | None,
    settings: dict[str, Any],
    *,
    read_only: bool,
    timeout_s: float,
    durability: str,
    max_memory: int | None,
) -> PostgresEngine:
    """The engine for an address, with its collection created or opened."""
    from nopokedb.embedded.search.analysis import LANGUAGES
    from nopokedb.postgres.engine import open_engine as open_

    if settings["text_language"] not in LANGUAGES:
        raise InvalidInputError(
            f"expected text_language to be one of {', '.join(map(repr, LANGUAGES))}, got "
            f"{settings['text_language']!r:.80}"
        )
    if durability != "full":
        raise NotSupportedError(
            "expected durability='full' with the engine PostgreSQL, whose settings decide what a commit survives, got "
            f"{durability!r}"
        )
    if max_memory is not None:
        raise NotSupportedError("expected no max_memory with the engine PostgreSQL, whose server holds the indexes")
    if embedder is not None:
        dim = embedder.dim
        settings |= {"embed_name": embedder.name, "embed_fingerprint": tuple(embedder.fingerprint)}
    engine = open_(uri, name, settings={"dim": dim or 0, **settings}, dim=dim, read_only=read_only, timeout_s=timeout_s)
    try:
        if embedder is not None:
            embedder.check(engine.embed_name, engine.embed_fingerprint)
    except BaseException:
        engine.close()
        raise
    return engine


def resolve_folder(path: str | Path, collection: str | None) -> Path:
    """The collection's folder. Names are single path components of letters, digits, `.`, `_` and `-`."""
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
        raise InvalidInputError(f"expected path to be a str or a Path, got {type(path).__name__} {path!r:.80}")
    text = str(path)
    if "://" in text:
        raise InvalidInputError(f"expected path to be a folder, got {text!r}")
    if not text or "\0" in text:
        raise InvalidInputError(f"expected path to be a folder, got {text!r}")
    if collection is None:
        return Path(path)
    return Path(path) / check_name(collection)


def check_name(collection: object) -> str:
    """The name of a collection."""
    if not isinstance(collection, str) or not _COLLECTION_NAME.fullmatch(collection):
        raise InvalidInputError(
            "expected a collection name of 1 to 128 letters, digits, '.', '_' or '-', not starting with '.' or '-', "
            f"got {collection!r:.150}"
        )
    return collection

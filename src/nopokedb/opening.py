"""From the arguments of `NoPokeDB` to an open engine: which folder or server, which settings, which model."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from nopokedb.embed import Embedder, make_embedder, stored_embedder
from nopokedb.engine import Engine
from nopokedb.errors import InvalidInputError
from nopokedb.records import MAX_DIM, Durability, IndexKind, Space, Vectors, check_choice, check_int, shown
from nopokedb.remote.address import Address, is_address, parse_address

Embed: TypeAlias = Callable[[Sequence[str]], Vectors]
"""Turns n texts into vectors of shape (n, dim)."""

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


def resolve_place(path: str | Path, collection: str | None) -> Path | Address:
    """Where the collection is: a folder, or a server's address."""
    if not is_address(path):
        return resolve_folder(path, collection)
    address = parse_address(str(path))
    if bool(address.collection) == (collection is not None):
        given = "both" if collection is not None else "neither"
        raise InvalidInputError(
            f"expected collection=, or its name behind the port, with the address {path!r:.200}, got {given}"
        )
    return replace(address, collection=check_name(address.collection or collection))


def open_place(place: Path | Address, opening: Opening) -> tuple[Engine, Embed | None]:
    """The engine of a place, and what turns texts into vectors there, where something does."""
    if isinstance(place, Address):
        from nopokedb.remote.opening import open_remote

        return open_remote(place, opening)
    if opening.api_key is not None:
        raise InvalidInputError(f"expected api_key only beside the address of a server, got one for the folder {place}")
    embedder = None if opening.embed is None else make_embedder(opening.embed)
    if embedder is not None and opening.dim is not None and opening.dim != embedder.dim:
        raise InvalidInputError(
            f"expected dim={embedder.dim}, the dimension of the model {embedder.name!r}, got dim={opening.dim}"
        )
    engine = open_engine(
        place,
        opening.dim,
        embedder,
        opening.fields,
        dict(opening.settings),
        opening.durability,
        opening.read_only,
        opening.max_memory,
    )
    return engine, embedder or stored_embedder(engine.embed_name, engine.embed_fingerprint)


def check_connection(api_key: object, timeout_s: object) -> None:
    """What only servers are asked with."""
    if api_key is not None and not (isinstance(api_key, str) and api_key.isascii() and api_key.isprintable()):
        raise InvalidInputError(f"expected api_key to be a str of printable ASCII, got {type(api_key).__name__}")
    number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not number or not 0 < timeout_s < math.inf:  # type: ignore[operator]
        raise InvalidInputError(f"expected timeout_s to be a number of seconds above 0, got {shown(timeout_s)}")


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

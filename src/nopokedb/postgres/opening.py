"""From the arguments of `NoPokeDB` to an open collection of a PostgreSQL database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nopokedb.embedding.embedder import Embedder
from nopokedb.errors import NotSupportedError
from nopokedb.postgres.address import Database
from nopokedb.postgres.engine import PostgresEngine
from nopokedb.postgres.schema import Settings

if TYPE_CHECKING:
    from nopokedb.opening import Opening


def open_postgres(place: Database, opening: Opening, embedder: Embedder | None) -> PostgresEngine:
    """The engine for an address, with its collection created or opened."""
    _check(opening)
    dim, settings = opening.dim, dict(opening.settings)
    if embedder is not None:
        dim = embedder.dim
        settings |= {"embed_name": embedder.name, "embed_fingerprint": tuple(embedder.fingerprint)}
    engine = PostgresEngine(
        place.uri,
        place.collection,
        settings=Settings(
            dim=dim or 0, indexed_fields=tuple(opening.fields), distributed=opening.distributed, **settings
        ),
        dim=dim,
        read_only=opening.read_only,
        timeout_s=opening.timeout_s,
    )
    try:
        if embedder is not None:
            embedder.check(engine.embed_name, engine.embed_fingerprint)
    except BaseException:
        engine.close()
        raise
    return engine


def _check(opening: Opening) -> None:
    """Refuse what the server decides for itself, rather than to leave it out."""
    if opening.durability != "full":
        raise NotSupportedError(
            "expected durability='full' with the engine PostgreSQL, whose settings decide what a commit survives, got "
            f"{opening.durability!r}"
        )
    if opening.max_memory is not None:
        raise NotSupportedError("expected no max_memory with the engine PostgreSQL, whose server holds the indexes")

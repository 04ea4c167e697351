"""From what `embed=` is given to an `Embedder`: a callable, the name of a model in a wheel, or KIND:PLACE."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from nopokedb.embedding.embedder import Embedder, Model, name_of
from nopokedb.embedding.fastembed import FastEmbed
from nopokedb.embedding.local import base_name
from nopokedb.embedding.model2vec import Model2Vec
from nopokedb.embedding.openai_compatible import OpenAICompatible
from nopokedb.embedding.sentence_transformers import SentenceTransformers
from nopokedb.embedding.wordllama import load_wordllama
from nopokedb.errors import InvalidInputError
from nopokedb.records import Vectors, shown

MODELS: dict[str, Callable[[], Model]] = {"wordllama": load_wordllama}
"""Models that ship inside a wheel, by name."""
KEY_VARIABLE = "NOPOKEDB_EMBEDDING_KEY"
"""The environment variable with the key for an `openai:` address. No other key of the environment goes to a server
that somebody typed."""


def _fastembed(place: str) -> Model:
    model, _, path = place.partition("@")
    return FastEmbed(model, path=path or None)


def _openai(place: str) -> Model:
    url, _, model = place.rpartition("#")
    return OpenAICompatible(url, model, api_key=os.environ.get(KEY_VARIABLE))


KINDS: dict[str, tuple[Callable[[str], Model], Callable[[str], str], str]] = {
    "model2vec": (Model2Vec, base_name, "FOLDER"),
    "sentence-transformers": (SentenceTransformers, base_name, "FOLDER"),
    "fastembed": (_fastembed, lambda place: base_name(place.partition("@")[0]), "MODEL[@FOLDER]"),
    "openai": (_openai, lambda place: place.rpartition("#")[2], "URL#MODEL"),
}
"""What stands in front of the colon: how such a model is made, what is its name of what stands behind, and how that is
written."""
FORMS = [*MODELS, *(f"{kind}:{form}" for kind, (_, _, form) in KINDS.items())]
"""What a str may be, for people."""


def _kind_of(text: str) -> tuple[str, str] | None:
    kind, colon, place = text.partition(":")
    return (kind, place) if colon and place and kind in KINDS else None


def check_spec(text: str) -> str:
    """The str, if it says which model is meant; nothing is loaded."""
    if text not in MODELS and _kind_of(text) is None:
        raise InvalidInputError(f"expected embed to be a callable or one of {', '.join(FORMS)}, got {text!r:.80}")
    return text


def model_name(text: str) -> str:
    """The name that a collection remembers for the model of this str; nothing is loaded."""
    found = _kind_of(check_spec(text))
    return text if found is None else f"{found[0]}:{KINDS[found[0]][1](found[1])}"


def make_embedder(embed: object) -> Embedder:
    """The embedder of an `embed=` argument: a callable, or a str (`FORMS`)."""
    if isinstance(embed, str):
        found = _kind_of(check_spec(embed))
        if found is None:
            return Embedder(MODELS[embed](), embed)
        return Embedder(KINDS[found[0]][0](found[1]), model_name(embed))
    if not callable(embed):
        raise InvalidInputError(f"expected embed to be a callable or the name of a model, got {shown(embed)}")
    return Embedder(embed, name_of(embed))


def stored_embedder(name: str, fingerprint: Sequence[float]) -> Callable[[Sequence[str]], Vectors] | None:
    """The model that a collection was created with, where that ships inside a wheel; loaded when first used. Others
    are loaded only for who names them: a folder must not decide which files of this machine are read."""
    if name not in MODELS:
        return None
    loaded: list[Embedder] = []

    def embed(texts: Sequence[str]) -> Vectors:
        if not loaded:
            embedder = make_embedder(name)
            embedder.check(name, fingerprint)
            loaded.append(embedder)
        return loaded[0](texts)

    return embed

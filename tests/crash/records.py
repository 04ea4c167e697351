"""Records that can be judged by themselves: everything in one follows from its key and three version numbers.

The metadata name the versions of vector, metadata and text, and carry a checksum over those names, so a record that
mixes parts of two batches, or has a wrong byte anywhere, is recognised without knowing what was written when.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from typing import Any, TypeAlias

import google_crc32c
import numpy as np

from nopokedb import Record

DIM = 8
COPIED = 9
"""Records of a collection before its migration."""

MODEL, BEFORE = "texts", "before-texts"
"""Another model, and the snapshot of the state before it came."""

Versions: TypeAlias = tuple[int, int, int]
"""Versions of metadata, vector and text."""
State: TypeAlias = dict[int, Versions]
"""What is in the collection, by key."""


@lru_cache(maxsize=100_000)
def vector_of(key: int, version: int) -> np.ndarray:
    """float32 (DIM,). The first number identifies the vector, so equal ones are equal records."""
    vector: np.ndarray = np.random.default_rng([key, version]).standard_normal(DIM).astype(np.float32)
    vector.flags.writeable = False
    return vector


def text_of(key: int, version: int) -> str | None:
    """A unique word; every fifth record has no text in its first version."""
    return None if key % 5 == 4 and version == 0 else f"word{key}x{version} " + "é" * (key % 7)


class Texts:
    """A model that makes of a record's text the vector of the same version."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, texts: list[str]) -> np.ndarray:
        found = [re.match(r"word(\d+)x(\d+) ", text) for text in texts]
        return np.array([vector_of(int(match[1]), int(match[2])) if match else np.ones(DIM) for match in found])


def id_of(key: int) -> int | str:
    """Ints and strs, both."""
    return f"key-{key}" if key % 4 == 3 else key


@lru_cache(maxsize=100_000)
def _checksum(key: int, versions: Versions) -> int:
    checksum: int = google_crc32c.value(json.dumps([key, *versions]).encode())
    return checksum


def metadata_of(key: int, versions: Versions) -> dict[str, Any]:
    """Names the versions; the checksum covers them."""
    return {"body": [key, *versions], "crc": _checksum(key, versions), "tag": f"t{versions[0] % 3}"}


def read_record(record: Record) -> tuple[int, Versions]:
    """Key and versions of a stored record. AssertionError where any part of it is not what was written."""
    metadata = record.metadata
    assert metadata is not None and record.vector is not None
    key, *rest = metadata["body"]
    versions = (rest[0], rest[1], rest[2])
    assert metadata == metadata_of(key, versions), f"wrong metadata: {metadata}"
    assert record.id == id_of(key), f"the id {record.id!r} came with the metadata of {key}"
    assert record.vector.tobytes() == vector_of(key, versions[1]).tobytes(), f"wrong vector of {record.id!r}"
    assert record.text == text_of(key, versions[2]), f"wrong text of {record.id!r}: {record.text!r}"
    return key, versions


def digest(state: State) -> str:
    """Names a state: equal states have equal digests."""
    listed = json.dumps([[key, *versions] for key, versions in sorted(state.items())])
    return hashlib.blake2b(listed.encode(), digest_size=12).hexdigest()

"""The copy-on-write set against a Python set."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nopokedb.embedded.storage.bitmap import CHUNK_BITS, Bitmap

LIMIT = 3 * CHUNK_BITS
numbers = st.lists(
    st.one_of(st.integers(0, 40), st.integers(CHUNK_BITS - 9, CHUNK_BITS + 9), st.integers(0, LIMIT - 1)),
    max_size=30,
)


@given(st.lists(st.tuples(numbers, numbers), max_size=6), st.integers(0, LIMIT), st.integers(0, LIMIT))
def test_every_version_stays_what_it_was(steps: list[tuple[list[int], list[int]]], a: int, b: int) -> None:
    """Each `changed` equals set algebra, and no later change shows in an older version."""
    bitmap, members = Bitmap(), set[int]()
    versions = [(bitmap, set(members))]
    for add, remove in steps:
        bitmap = bitmap.changed(np.array(add, np.int64), np.array(remove, np.int64))
        members = (members | set(add)) - set(remove)
        versions.append((bitmap, set(members)))
    start, stop = min(a, b), max(a, b)
    for version, expected in versions:
        assert version.count == len(expected)
        assert version.members(start, stop).tolist() == sorted(m for m in expected if start <= m < stop)
        assert all(m in version for m in list(expected)[:5])
        assert Bitmap.from_bytes(version.to_bytes()).members(0, LIMIT).tolist() == sorted(expected)
        base = start - start % 8
        bits = version.slice(base, stop)
        assert int(np.bitwise_count(bits).sum()) == sum(base <= m < stop for m in expected)


def test_unchanged_chunks_are_shared() -> None:
    """A change copies the chunk it touches and no other."""
    before = Bitmap.of(range(0, LIMIT, 1000))
    after = before.changed(np.array([5], np.int64), np.array([], np.int64))
    assert after.chunks[0] is not before.chunks[0]
    assert after.chunks[1] is before.chunks[1] and after.chunks[2] is before.chunks[2]

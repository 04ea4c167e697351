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


@given(numbers, numbers, numbers, numbers)
def test_what_another_set_lacks(first: list[int], gone: list[int], come: list[int], gone_later: list[int]) -> None:
    """`missing_from` is the difference of the sets; with an earlier version of the other one, at least what left that
    since, and nothing else than the difference."""
    none = np.array([], np.int64)
    mine = Bitmap.of(first)
    earlier = mine.changed(np.array(come, np.int64), np.array(gone, np.int64))
    other = earlier.changed(none, np.array(gone_later, np.int64))
    for left, right in ((mine, earlier), (mine, other), (other, mine), (Bitmap(), mine), (mine, Bitmap())):
        expected = members_of(left) - members_of(right)
        assert left.missing_from(right).tolist() == sorted(expected)
        assert left.missing_from(right, before=Bitmap()).tolist() == sorted(expected)
    found = mine.missing_from(other, before=earlier).tolist()
    assert found == sorted(found)
    assert members_of(mine) & members_of(earlier) - members_of(other) <= set(found)
    assert set(found) <= members_of(mine) - members_of(other)


def members_of(bitmap: Bitmap) -> set[int]:
    return set(bitmap.members(0, LIMIT).tolist())


def test_chunks_that_are_shared_are_not_looked_at() -> None:
    """What the other set lacked before, in a chunk that it still has, is not told again."""
    mine = Bitmap.of([1, CHUNK_BITS + 1])
    earlier = mine.changed(np.array([], np.int64), np.array([1], np.int64))
    other = earlier.changed(np.array([], np.int64), np.array([CHUNK_BITS + 1], np.int64))
    assert mine.missing_from(other, before=earlier).tolist() == [CHUNK_BITS + 1]


def test_unchanged_chunks_are_shared() -> None:
    """A change copies the chunk it touches and no other."""
    before = Bitmap.of(range(0, LIMIT, 1000))
    after = before.changed(np.array([5], np.int64), np.array([], np.int64))
    assert after.chunks[0] is not before.chunks[0]
    assert after.chunks[1] is before.chunks[1] and after.chunks[2] is before.chunks[2]

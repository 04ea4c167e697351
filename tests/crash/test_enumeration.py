"""Power cuts at every file operation, checked image by image. `python -m crash` is the long form."""

from __future__ import annotations

import time

import pytest

from crash.__main__ import lines_of
from crash.enumeration import RECOVERY, Demand, Enumeration, Promises
from crash.images import Disk
from crash.plants import all_plants
from crash.recording import record, why_not
from crash.trace import Op, pieces

SHARES = {
    "create": 2,
    "singles": 10,
    "batches": 60,
    "updates": 8,
    "checkpoints": 8,
    "rotation": 60,
    "sealing": 60,
    "reopening": 8,
    "threads": 24,
    "killed": 16,
    "compacting": 60,
    "reembedding": 150,
    "going_back": 16,
    "indexed_and_searched": 40,
    "restoring": 8,
    "backing_up": 1,
    "migrating": 90,
    "unsynced": 12,
    "failed_syncs": 180,
}
"""One of so many images is checked here, all of them in the long run. Which ones depends on the seed."""
RECOVERIES = 2
SHARES_OF_PLANTS = (8, 1)


@pytest.fixture(scope="module")
def fuse() -> None:
    """Skips where nothing can be recorded, and says why."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def checked() -> list[Enumeration]:
    """What the scenarios of this run came to."""
    return []


@pytest.mark.parametrize("name", SHARES)
def test_a_power_cut_at_any_operation_keeps_what_was_acknowledged(
    fuse: None, checked: list[Enumeration], name: str, seed: int
) -> None:
    """Whatever a disk kept of what was not synced: the acknowledged batches are there byte by byte, the one that was
    being written is there whole or not at all, and the folder goes on as any other. So it is when a recovery is cut."""
    made = Enumeration(name, seed, share=SHARES[name], sample=9)
    made.run(record(name, seed))
    inner = made.recoveries(RECOVERIES, share=max(1, SHARES[name] // 2))
    done = [made, inner] if inner is not None else [made]
    print("\n".join(lines_of(done)))
    assert not [str(violation) for each in done for violation in each.violations][:5]
    checked += done


def test_enough_images_were_checked(fuse: None, checked: list[Enumeration]) -> None:
    """A run that looks at too little says nothing."""
    if {made.name for made in checked} >= set(SHARES):
        print("\n".join(lines_of(checked)))
        assert sum(made.checked for made in checked) >= 5_000


@pytest.mark.parametrize("name", all_plants())
def test_a_planted_bug_is_found(fuse: None, name: str, seed: int) -> None:
    """The instrument sees what it is made for: each known way to lose data is found."""
    plant = all_plants()[name]
    begun = time.monotonic()
    ops, scenario, skip = record(plant.scenario, seed, name), plant.scenario, plant.skip
    if plant.in_recovery:
        scenario, skip = scenario + RECOVERY, 0
        whole = Enumeration(plant.scenario, seed, name, skip=plant.skip, share=30, sample=1)
        whole.run(ops)
        assert not whole.violations
        ops = whole.recorded_recoveries(12)
    # Most bugs spoil many images, so that a few find them; where those do not, all of them are looked at.
    for share in SHARES_OF_PLANTS:
        made = Enumeration(scenario, seed, name, skip=skip, share=share, stop_at_violation=True)
        made.run(ops)
        print(f"one of {share}: {made.checked} images, {time.monotonic() - begun:.1f} s: {made.violations[:1]}")
        if made.violations:
            break
    assert made.violations


# --- the parts -----------------------------------------------------------------------------------------------


def images_after(model: str, ops: list[Op]) -> list[dict[str, bytes | None]]:
    """The files of every image after these operations."""
    disk = Disk(model)
    for number, op in enumerate(ops):
        disk.tell(number, op)
    found = []
    for image in disk.images(len(ops) - 1, "db", 1):
        found.append({name: content and content.data for name, content in image.files.items()})
    return found


FOLDER = [Op("mkdir", 2, 1, "db"), Op("fsyncdir", 1)]


def test_what_was_not_synced_may_be_missing_in_any_part() -> None:
    """Bytes, lengths without bytes, torn bytes and names by themselves."""
    ops = [*FOLDER, Op("create", 3, 2, "a"), Op("fsyncdir", 2), Op("write", 3, offset=0, data=b"abcd")]
    found = [image.get("a") for image in images_after("strict", ops)]
    assert {b"", b"a", b"ab", b"abc", b"abcd", bytes(4)} == set(found)


def test_a_sync_makes_its_file_durable_and_nothing_else() -> None:
    """Two files, one of them synced."""
    files = [Op("create", 3, 2, "a"), Op("create", 4, 2, "b"), Op("fsyncdir", 2)]
    writes = [Op("write", 3, offset=0, data=b"x"), Op("write", 4, offset=0, data=b"y"), Op("fsync", 3)]
    found = images_after("strict", [*FOLDER, *files, *writes])
    assert {image["a"] for image in found} == {b"x"}
    assert {image["b"] for image in found} >= {b"", b"y"}


def test_what_a_failed_sync_should_have_written_may_be_missing_for_ever() -> None:
    """A later sync of the same file succeeds and does not bring it back; what was written after the failure it does."""
    file = [Op("create", 3, 2, "a"), Op("fsyncdir", 2), Op("write", 3, offset=0, data=b"x"), Op("failed", 3)]
    later = [Op("write", 3, offset=1, data=b"y"), Op("fsync", 3)]
    found = [image["a"] for image in images_after("strict", [*FOLDER, *file, *later])]
    assert set(found) == {b"xy", b"\0y"}
    again = [Op("write", 3, offset=0, data=b"z"), Op("fsync", 3)]
    assert [image["a"] for image in images_after("strict", [*FOLDER, *file, *again])] == [b"z"]
    shorter = [Op("truncate", 3, offset=0), Op("fsync", 3)]
    assert [image["a"] for image in images_after("strict", [*FOLDER, *file, *shorter])] == [b""]


def test_the_models_differ_in_what_makes_a_name_durable() -> None:
    """A sync of the file alone is enough for a journal, and not for POSIX."""
    ops = [*FOLDER, Op("create", 3, 2, "a"), Op("write", 3, offset=0, data=b"x"), Op("fsync", 3)]
    assert {image.get("a") for image in images_after("ordered", ops)} == {b"x"}
    assert {image.get("a") for image in images_after("strict", ops)} == {b"x", None}


def test_files_are_followed_by_inode() -> None:
    """A rename replaces the name, never the bytes of the file that had it; both stages are possible until the sync."""
    old = [Op("create", 3, 2, "a"), Op("write", 3, offset=0, data=b"old"), Op("fsync", 3), Op("fsyncdir", 2)]
    new = [Op("create", 4, 2, "t"), Op("write", 4, offset=0, data=b"new"), Op("fsync", 4), Op("rename", 4, 2, "t", "a")]
    found = images_after("strict", [*FOLDER, *old, *new])
    assert {image["a"] for image in found} == {b"old", b"new"}
    assert images_after("strict", [*FOLDER, *old, *new, Op("fsyncdir", 2)]) == [{"a": b"new"}]


def test_a_long_write_is_cut_where_pages_end() -> None:
    parts = list(pieces(100, bytes(20_000)))
    assert [len(data) for _, data in parts] == [8092, 8192, 3716]
    assert all(offset % 4096 == 0 for offset, _ in parts[1:])


def test_what_is_demanded_follows_the_acknowledgements() -> None:
    """Before an acknowledgement a batch may be there or not; after it, it has to be; with durability="os" only once it
    was kept."""
    batch = '{"put": [[1, 0, 0, 0]], "gone": []}'
    for durability, after_ack in (("full", 1), ("os", 2)):
        promises = Promises(durability)
        promises.hear("opened", "")
        promises.hear("begin", f"1 {batch}")
        assert len(promises.demand().states) == 2
        assert promises.hear("ack", "1")
        assert len(promises.demand().states) == after_ack
        promises.hear("kept", "")
        assert len(promises.demand().states) == 1
    two = Promises()
    two.hear("begin", f"1 {batch}")
    two.hear("begin", '2 {"put": [[2, 0, 0, 0]], "gone": []}')
    assert len(two.demand().states) == 5, "absent, empty, either batch, both"
    empty = Demand(Promises().demand().states, 0)
    answer = {"state": empty.states[-1], "count": 0, "recall": None, "problem": None}
    assert empty.objection(answer) is None
    assert empty.objection({**answer, "state": "another"}) and empty.objection({**answer, "problem": "hung"})
    assert Demand(empty.states, 0, 0.99).objection({**answer, "recall": 0.98})

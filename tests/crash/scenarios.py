"""What the workloads do. A new feature that writes files gets a function here; everything else follows."""

from __future__ import annotations

import os
import random
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import apsw
from next_format import NEXT, format_is

from crash.checker import BACKUPS, COLLECTION, FULL, MORE, OLDER
from crash.records import BEFORE, COPIED, MODEL, Texts
from crash.workload import KILLED, Workload
from nopokedb import restore
from nopokedb.embedded import sealing as sealing_module
from nopokedb.embedded import upkeep
from nopokedb.embedded.storage.files import sync_folder
from nopokedb.embedded.store import Store


@dataclass(frozen=True, slots=True)
class Scenario:
    """One workload, and with which durability it runs."""

    run: Callable[[Workload], None]
    durability: str = "full"
    processes: int = 1
    """The workload is run so often, each time in a new process on what the one before it left."""
    planted_only: bool = False
    """The smallest workload that shows some planted bug; other scenarios do the same and more."""
    holds: str = COLLECTION
    """What its folders are, as the checker has to be told."""


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    durability: str = "full", *, processes: int = 1, planted_only: bool = False, holds: str = COLLECTION
) -> Callable[[Callable[[Workload], None]], Callable[[Workload], None]]:
    """Register a workload under the name of its function."""

    def register(run: Callable[[Workload], None]) -> Callable[[Workload], None]:
        SCENARIOS[run.__name__] = Scenario(run, durability, processes, planted_only, holds)
        return run

    return register


@scenario()
def create(work: Workload) -> None:
    """A new collection, closed and opened again without a record; then one."""
    work.open()
    work.close()
    work.open()
    work.add()
    work.close()


@scenario()
def singles(work: Workload) -> None:
    """Single adds, and the process ends without closing."""
    work.open()
    for _ in range(8):
        work.add()


@scenario()
def batches(work: Workload) -> None:
    """Batches of 1, 7 and 500."""
    work.open()
    for count in (7, 1, 500, 7):
        work.add(count)
    work.close()


@scenario()
def updates(work: Workload) -> None:
    """Upserts of old and new keys, metadata alone, deletions, and blocks that mix all of them."""
    work.open()
    keys = work.add(9)
    work.upsert([*keys[:3], *work.new_keys(2)])
    work.update_metadata(keys[2:6])
    work.delete([keys[0], keys[3]])
    work.mixed_batch(3, keys[4:6], [keys[7], keys[8]])
    work.save()
    work.upsert([keys[0]])
    work.update_metadata([keys[1]])
    work.mixed_batch(1, [keys[2]], [keys[5]])
    work.close()


@scenario()
def checkpoints(work: Workload) -> None:
    """Checkpoints between batches, each with its log rotation, then a clean close, an opening and more batches."""
    work.open()
    for _ in range(3):
        keys = work.add(3)
        work.delete(keys[:1])
        work.save()
    work.close()
    work.open()
    work.add(2)
    work.save()
    work.add()


@scenario()
def rotation(work: Workload) -> None:
    """The background checkpoint that a grown log asks for, while batches are written."""
    upkeep.CHECKPOINT_BYTES = 8_000
    work.open()
    for _ in range(10):
        work.add(7)
        work.upsert(work.new_keys(1))
    work.close()


@scenario()
def sealing(work: Workload) -> None:
    """An index over the tail, then a larger one in its place, with deletions and a checkpoint between."""
    sealing_module.SEAL_ROWS = 200
    work.open()
    keys = work.add(260)
    work.wait_until_sealed()
    work.delete(keys[:5])
    work.save()
    work.add(220)
    work.wait_until_sealed()
    work.add()
    work.close()


@scenario()
def reopening(work: Workload) -> None:
    """Opened, written and closed again and again."""
    work.open()
    for _ in range(4):
        work.add(2)
        work.close()
        work.open()
    work.close()


@scenario()
def threads(work: Workload) -> None:
    """Three threads at once, whose batches share syncs and are unsynced together; checkpoints meanwhile."""
    work.open()

    def write() -> None:
        for count in (1, 3, 2, 1):
            keys = work.add(count)
            work.upsert(keys[:1])
            work.delete(keys[1:2])

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    work.save()
    for writer in writers:
        writer.join()
    assert len(work.db) == len(work.live), "a thread failed"


@scenario(processes=6)
def killed(work: Workload) -> None:
    """Processes that are killed, each followed by one that recovers what the page cache still has, and the disk may not
    have yet. Where they are killed follows from the seed: at work, or while they recover."""
    call = random.Random(f"{work.seed}/{work.stage}").randint(1, 45)
    if work.stage in (2, 4):
        work.die_at(call)
    work.open()
    if work.stage in (0, 1, 3):
        work.die_at(call)
    for _ in range(2):
        keys = work.add(2)
        work.upsert(keys[:1])
        work.save()
        work.delete(keys[1:])


@scenario()
def compacting(work: Workload) -> None:
    """New generations, asked for between batches, one of them with a snapshot that keeps old versions."""
    work.open()
    keys = work.add(9)
    work.upsert(keys[:4])
    work.update_metadata(keys[2:5])
    work.delete(keys[7:])
    work.db.compact()
    work.add(2)
    work.db.snapshot("kept")
    then = dict(work.live)
    work.upsert(keys[:2])
    work.db.compact()
    work.rollback("kept", then)
    work.close()


@scenario()
def reembedding(work: Workload) -> None:
    """Another model, between batches: its vectors are those that the records have, so each record is checked as ever.
    The snapshots of before are read like others."""
    work.open()
    keys = work.add(3)
    work.upsert(keys)  # every record has a text now
    work.db.snapshot("first")
    work.delete(keys[2:])
    work.db.reembed(Texts(MODEL), snapshot=BEFORE)
    work.upsert(keys[:1])
    work.close()


@scenario()
def going_back(work: Workload) -> None:
    """Undo and rollback, which are batches like others; snapshots made and dropped; a close and an opening between."""
    work.open()
    keys = work.add(6)
    work.db.snapshot("one")
    one = dict(work.live)
    work.upsert(keys[:3])
    work.delete(keys[4:])
    before = dict(work.live)
    work.add(2)
    work.undo(before)
    work.close()
    work.open()
    work.rollback("one", one)
    work.db.drop_snapshot("one")
    work.add()
    work.close()


@scenario()
def indexed_and_searched(work: Workload) -> None:
    """Indexes on fields, declared and made later; writes by filter; a text index that is saved and goes on."""
    work.open(indexed_fields=("tag",))
    keys = work.add(8)
    work.db.query(text="word1x0")
    work.upsert(keys[:3])
    work.db.create_index("body")
    work.delete_by_filter("t1")
    work.save()
    work.add(3)
    work.db.query(text="word9x0")
    work.db.drop_index("tag")
    work.close()
    work.open()
    work.add(2)
    work.close()


@scenario()
def restoring(work: Workload) -> None:
    """A whole collection comes from a backup: all of it or none."""
    with tempfile.TemporaryDirectory() as elsewhere:  # not on the mount
        made = Workload(Path(elsewhere), "full")
        made.open(indexed_fields=("tag",))
        made.add(7)
        made.db.backup(Path(elsewhere) / "full")
        made.upsert([0, 1])
        made.delete([2])
        made.db.backup(Path(elsewhere) / "more", since=Path(elsewhere) / "full")
        made.db.close()
        work.new_keys(7)  # those that the backup has
        work.begin(made.live)
        restore([Path(elsewhere) / "full", Path(elsewhere) / "more"], work.folder)
        work.ack()
    work.open()
    work.add()
    work.close()


@scenario(holds=BACKUPS)
def backing_up(work: Workload) -> None:
    """A backup, then an incremental one, in a folder that holds nothing else: once the call returned, each gives the
    collection of its moment back; before that it does so or is not there."""
    work.folder.mkdir()
    sync_folder(work.folder.parent)
    with tempfile.TemporaryDirectory() as elsewhere:  # the collection itself is not on the mount
        made = Workload(Path(elsewhere), "full")
        made.open(indexed_fields=("tag",))
        keys = made.add(9)
        made.upsert(keys[:3])
        work.begin(made.live)
        made.db.backup(work.folder / FULL)
        work.ack()
        work.say("opened")
        made.upsert([*keys[2:4], *made.new_keys(2)])
        made.delete(keys[7:])
        work.begin(made.live, keys[7:])
        made.db.backup(work.folder / MORE, since=work.folder / FULL)
        work.ack()
        made.db.close()


@scenario(processes=3, holds=OLDER)
def migrating(work: Workload) -> None:
    """A later version of the package opens what this one left without closing, and is killed in the middle of it where
    the seed says so; then it goes on."""
    if work.stage == 0:
        work.open()
        keys = work.add(COPIED)
        work.save()
        work.upsert(keys[:2])
        return
    with format_is(NEXT):
        if work.stage == 1:
            work.die_at(random.Random(work.seed).randint(1, 60))
        work.open()
        work.add(2)
        work.close()


@scenario(processes=8)
def failed_syncs(work: Workload) -> None:
    """Syncs that fail once and then lie: what the failed one should have written never reaches the disk, whatever is
    synced later. Each process ends with its first error, and the next one opens what the page cache has."""
    if work.stage % 2 == 0:
        work.fail_sync(random.Random(f"{work.seed}/{work.stage}").randint(1, 30))
    try:
        work.open()
        for _ in range(2):
            keys = work.add(2)
            work.upsert(keys[:1])
            work.save()
            work.delete(keys[1:])
    except OSError:
        os._exit(KILLED)


@scenario("os")
def unsynced(work: Workload) -> None:
    """durability="os": what a `save` or `close` returned for is there, later batches from the first one on."""
    work.open()
    for _ in range(3):
        work.add()
        work.add(3)
        work.upsert([0])
        work.save()
    work.add()
    work.delete([1])
    work.close()


@scenario(planted_only=True)
def one_failed_sync(work: Workload) -> None:
    work.open()
    work.fail_sync(1)
    try:
        work.add()
    except OSError:
        os._exit(KILLED)


@scenario(planted_only=True, processes=2)
def one_failed_checkpoint(work: Workload) -> None:
    """SQLite cannot sync its WAL; the next process finds it in the page cache, and makes a checkpoint."""
    work.open()
    if work.stage == 0:
        sync_columns = Store.sync_columns

        def then_fail(store: Store) -> None:
            sync_columns(store)
            work.fail_sync(1)

        Store.sync_columns = then_fail  # type: ignore[method-assign]
        work.add(3)
    try:
        work.save()
    except OSError:
        os._exit(KILLED)


@scenario(planted_only=True, holds=OLDER)
def one_migration(work: Workload) -> None:
    work.open()
    work.add(COPIED)
    work.save()
    work.close()
    with format_is(NEXT):
        work.open()


@scenario(planted_only=True)
def one_batch(work: Workload) -> None:
    work.open()
    work.add(3)


@scenario(planted_only=True)
def two_batches(work: Workload) -> None:
    work.open()
    work.add(3)
    work.add(3)


@scenario(planted_only=True)
def one_checkpoint(work: Workload) -> None:
    work.open()
    work.add(3)
    work.delete([1])
    work.save()
    work.add(2)


@scenario(planted_only=True)
def one_compaction(work: Workload) -> None:
    work.open()
    keys = work.add(3)
    work.delete(keys[:1])
    work.db.compact()
    work.add()


@scenario(planted_only=True)
def one_reembedding(work: Workload) -> None:
    work.open()
    work.add(3)
    work.db.reembed(Texts(MODEL), snapshot=BEFORE)
    work.add()


@scenario(planted_only=True)
def one_reopening(work: Workload) -> None:
    work.open()
    work.add(3)
    work.close()
    work.open()
    work.add()
    work.save()


@scenario(planted_only=True)
def blocked_checkpoint(work: Workload) -> None:
    """A checkpoint while another connection reads the database file as the last checkpoint left it: SQLite then copies
    nothing, and syncs nothing."""
    work.open()
    work.add(3)
    work.save()
    holder = apsw.Connection(str(work.folder / "metadata-1.db"))
    holder.execute("BEGIN")
    holder.execute("SELECT count(*) FROM records").fetchall()
    work.add(2)
    work.save()
    work.add()


@scenario("os", planted_only=True)
def one_unsynced_rotation(work: Workload) -> None:
    work.open()
    work.add(3)
    work.add()
    work.save()


@scenario(processes=2, planted_only=True)
def one_kill(work: Workload) -> None:
    """Killed before the sync of a batch, which is then found in the page cache."""
    work.open()
    if work.stage == 0:
        work.add()
        work.die_at(2)
    work.add()

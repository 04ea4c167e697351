"""The operation log: every way a disk may tear it, and the line between a lost tail and corruption."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nopokedb.embedded.storage.frames import Frame, decode_frame, encode_frame
from nopokedb.embedded.storage.oplog import Entry, OplogWriter, drop_logs, log_path, read_log, write_base
from nopokedb.errors import CorruptionError


def read(folder: Path, after_lsn: int) -> tuple[list[Entry], str | None]:
    """The frames and what was cut."""
    content = read_log(folder, after_lsn)
    return content.entries, content.cut


def written(folder: Path, payloads: list[bytes], *, sync_each: bool = False) -> tuple[Path, list[int]]:
    """A log of these payloads, and the offset behind each frame."""
    log = OplogWriter(folder, 1, 1, durable=True)
    ends = []
    for payload in payloads:
        lsn = log.append(payload)
        ends.append(log.size)
        if sync_each:
            log.sync(lsn)
    log.close()
    os.truncate(log.path, log.size)  # without the room written ahead
    return log.path, ends


def test_cut_at_any_byte_leaves_a_prefix(tmp_path: Path) -> None:
    """However the last, unsynced writes are torn, reading yields exactly the first n frames, and says so."""
    payloads = [b"first", b"", b"third" * 20, b"4"]
    path, ends = written(tmp_path, payloads)
    data = path.read_bytes()
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        entries, cut = read(tmp_path, 0)
        whole = sum(end <= size for end in ends)
        assert [entry.payload for entry in entries] == payloads[:whole], size
        assert [entry.lsn for entry in entries] == list(range(1, whole + 1))
        at_border = size in (56, *ends)  # elsewhere something was torn
        assert (cut is None) == (at_border), (size, cut)


def test_any_subset_of_an_unsynced_tail_may_be_lost(tmp_path: Path) -> None:
    """Frames written between two syncs reach the disk in any order: what survives is the prefix before the first
    hole, and never an error."""
    payloads = [bytes([65 + n]) * (50 + n) for n in range(6)]
    path, ends = written(tmp_path, payloads)
    data = path.read_bytes()
    starts = [56, *ends[:-1]]
    for lost in itertools.chain.from_iterable(itertools.combinations(range(6), n) for n in range(1, 6)):
        image = bytearray(data)
        for n in lost:
            image[starts[n] : ends[n]] = bytes(ends[n] - starts[n])
        path.write_bytes(bytes(image))
        entries, cut = read(tmp_path, 0)
        assert [entry.payload for entry in entries] == payloads[: min(lost)]
        # Zeros to the end of the file look like room written ahead; a hole before a frame does not.
        assert (cut is None) == (list(lost) == list(range(min(lost), 6)))


def test_damage_to_what_was_durable_is_corruption(tmp_path: Path, seed: int) -> None:
    """A later frame knows that the earlier ones were durable: a flip there is reported with file and offset, never
    cut away. Only the last frame cannot be told from a torn one."""
    payloads = [bytes([n]) * 40 for n in range(5)]
    path, ends = written(tmp_path, payloads, sync_each=True)
    data = path.read_bytes()
    random.seed(seed)
    for at in range(len(data)):
        image = bytearray(data)
        image[at] ^= 1 << random.randrange(8)
        path.write_bytes(bytes(image))
        if at < ends[3]:
            with pytest.raises(CorruptionError) as caught:
                read_log(tmp_path, 0)
            assert caught.value.file == str(path)
            assert caught.value.offset is not None and caught.value.offset <= at
        else:
            entries, cut = read(tmp_path, 0)
            assert [entry.payload for entry in entries] == payloads[:4] and cut


def test_an_older_file_cannot_be_torn(tmp_path: Path) -> None:
    """A file is synced before the next is created, so any damage in it is corruption, at every byte."""
    log = OplogWriter(tmp_path, 1, 1, durable=True)
    log.append(b"one")
    log.append(b"two")
    os.truncate(log.path, log.size)
    log.rotate()
    log.append(b"three")
    log.close()
    assert [e.payload for e in read_log(tmp_path, 0).entries] == [b"one", b"two", b"three"]
    first = log_path(tmp_path, 1)
    data = first.read_bytes()
    for size in range(len(data)):
        first.write_bytes(data[:size])
        with pytest.raises(CorruptionError):
            read_log(tmp_path, 0)
    first.unlink()
    with pytest.raises(CorruptionError, match="missing"):
        read_log(tmp_path, 0)
    assert [e.payload for e in read_log(tmp_path, 2).entries] == [b"three"]


def test_a_base_file_replaces_older_ones_and_is_whole(tmp_path: Path) -> None:
    """Recovery's file wins over the files it repeats, even if those reappear, and none of its bytes may change."""
    path, ends = written(tmp_path, [b"kept", b"also", b"torn"])
    data = path.read_bytes()
    path.write_bytes(data[: ends[1] + 3])
    write_base(tmp_path, 2, 1, read_log(tmp_path, 0))
    path.write_bytes(data)  # the tail that was cut comes back: it must not be believed
    assert [e.payload for e in read_log(tmp_path, 0).entries] == [b"kept", b"also"]
    drop_logs(tmp_path, 2)
    base = log_path(tmp_path, 2)
    data = base.read_bytes()
    for at in range(57, len(data)):
        image = bytearray(data)
        image[at] ^= 0x10
        base.write_bytes(bytes(image))
        with pytest.raises(CorruptionError):
            read_log(tmp_path, 0)
    for size in range(56, len(data)):
        base.write_bytes(data[:size])
        with pytest.raises(CorruptionError):
            read_log(tmp_path, 0)


def test_an_empty_base_ends_a_torn_log(tmp_path: Path) -> None:
    """Where nothing survived, the torn file is superseded too: it must not read as corruption later."""
    path, _ = written(tmp_path, [b"torn"])
    path.write_bytes(path.read_bytes()[:60])
    entries, cut = read(tmp_path, 0)
    assert entries == [] and cut
    write_base(tmp_path, 2, 1, read_log(tmp_path, 0))
    log = OplogWriter(tmp_path, 3, 1, durable=True)
    log.append(b"next")
    log.close()
    assert [e.payload for e in read_log(tmp_path, 0).entries] == [b"next"]


def test_a_payload_cannot_pass_for_a_frame(tmp_path: Path) -> None:
    """Bytes of a valid frame of another file inside a payload are not taken for proof of durability."""
    other = tmp_path / "other"
    other.mkdir()
    path, _ = written(other, [b"x"] * 9, sync_each=True)
    forged = path.read_bytes()[56:]
    mine = tmp_path / "mine"
    mine.mkdir()
    path, ends = written(mine, [b"ok", forged])
    data = bytearray(path.read_bytes())
    data[ends[0] + 10] ^= 1  # damage the header of the frame that holds the forgery
    path.write_bytes(bytes(data))
    entries, cut = read(mine, 0)
    assert [entry.payload for entry in entries] == [b"ok"] and cut


ids = st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(min_size=1, max_size=9)), max_size=5)


@given(ids, st.data())
def test_frames_survive_encoding(keys: list[int | str], data: st.DataObject) -> None:
    """A frame decodes to what was encoded, for any mix of ids, metadata, texts and shared rows."""
    n = len(keys)
    m = data.draw(st.integers(0, n))
    u32 = st.integers(0, 2**32 - 1)
    frame = Frame(
        generation=data.draw(u32),
        first_label=data.draw(u32),
        first_row=data.draw(u32),
        next_auto_id=data.draw(st.integers(0, 2**63)),
        rows=np.array(data.draw(st.lists(u32, min_size=n, max_size=n)), np.uint32),
        previous=np.array(data.draw(st.lists(u32, min_size=n, max_size=n)), np.uint32),
        retired=np.array(data.draw(st.lists(u32, max_size=4)), np.uint32),
        ids=keys,
        metadatas=data.draw(st.lists(st.binary(max_size=8), min_size=n, max_size=n)),
        texts=data.draw(st.lists(st.none() | st.text(max_size=8), min_size=n, max_size=n)),
        vectors=np.arange(3 * m, dtype=np.float32).reshape(m, 3),
        lsn=7,
    )
    back = decode_frame(encode_frame(frame), 7)
    for name in Frame.__dataclass_fields__:
        old, new = getattr(frame, name), getattr(back, name)
        if isinstance(old, np.ndarray):
            assert old.shape == new.shape and np.array_equal(old, new), name
        else:
            assert old == new and [type(x) for x in keys] == [type(x) for x in back.ids], name


def test_entries_name_their_place(tmp_path: Path) -> None:
    """An entry tells where it was found."""
    path, ends = written(tmp_path, [b"a", b"b"])
    entries, _ = read(tmp_path, 0)
    assert [(e.file, e.offset) for e in entries] == [(path, 56), (path, ends[0])]
    assert isinstance(entries[0], Entry)


def test_room_written_ahead_is_no_damage(tmp_path: Path) -> None:
    """Zeros behind the last frame are the room of the next one; anything else there is a torn frame."""
    log = OplogWriter(tmp_path, 1, 1, durable=True)
    log.append(b"small")
    log.append(b"frames")
    log.append(b"x" * 100_000)
    log.append(b"last")
    log.close()
    size = log.path.stat().st_size
    assert size > log.size
    content = read_log(tmp_path, 0)
    assert len(content.entries) == 4 and content.cut is None
    data = bytearray(log.path.read_bytes())
    data[log.size + 1000] = 7
    log.path.write_bytes(bytes(data))
    content = read_log(tmp_path, 0)
    assert len(content.entries) == 4 and content.cut is not None

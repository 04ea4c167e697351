"""Power cuts on ext4 and XFS. `python -m crash.power ext4 200` is the long form."""

from __future__ import annotations

from pathlib import Path

import pytest

from crash import power

CUTS = 6


@pytest.mark.parametrize("kind", power.FILE_SYSTEMS)
def test_a_power_cut_on_a_real_file_system_loses_nothing(tmp_path: Path, kind: str, seed: int) -> None:
    """The file system drops everything that it has not written; after the next mount every acknowledged batch is there,
    and the one that was being written is there whole or not at all."""
    if (reason := power.why_not(kind, tmp_path)) is not None:
        pytest.skip(reason)
    with power.disk(kind, tmp_path) as disk:
        assert power.cut_and_check(disk, CUTS, seed)


@pytest.mark.parametrize("kind", power.FILE_SYSTEMS)
def test_a_cut_does_lose_what_was_not_synced(tmp_path: Path, kind: str) -> None:
    """Otherwise the test above would prove nothing."""
    if (reason := power.why_not(kind, tmp_path)) is not None:
        pytest.skip(reason)
    with power.disk(kind, tmp_path) as disk:
        file = disk.mount_point / "file"
        file.write_bytes(b"not synced")
        disk.cut()
        disk.unmount()
        disk.mount()
        assert not file.exists() or file.read_bytes() != b"not synced"

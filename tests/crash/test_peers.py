"""The power cuts that other databases are put through, on NoPokeDB and on a file that nobody syncs.
`python -m crash.peers` is the long form."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crash import power
from crash.peers.__main__ import NAMES, OURS, Result, about, cut_often, lines_of

CUTS = 2


@pytest.mark.parametrize("name", [OURS, "faiss_file"])
def test_the_same_cuts_for_all(tmp_path: Path, name: str, seed: int) -> None:
    """Nothing of NoPokeDB is lost; an index that is saved by writing a file is, so the loop does see losses."""
    if (reason := power.why_not("ext4", tmp_path)) is not None:
        pytest.skip(reason)
    result = about(name, Path(sys.executable))
    assert isinstance(result, Result), result
    with power.disk("ext4", tmp_path) as disk:
        cut_often(name, Path(sys.executable), disk, CUTS, seed, result)
    print("\n".join(lines_of([result])))
    assert result.cuts == CUTS and result.acknowledged
    if name == OURS:
        assert (result.bad_cuts, result.lost, result.corrupt, result.partial, result.unopenable) == (0, 0, 0, 0, 0)
    else:
        assert result.bad_cuts and (result.lost or result.unopenable)


def test_a_database_that_is_not_installed_is_named(tmp_path: Path) -> None:
    """It is left out and the reason told, not an error."""
    assert "make peers" in str(about(NAMES[1], tmp_path / "python"))
    reason = about("chroma_peer", Path(sys.executable))
    assert isinstance(reason, Result) or "chromadb" in reason

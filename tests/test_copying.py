"""Copies from one engine to another: complete, resumable, verified, and told when they are not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model import dump
from servers import until

from nopokedb import InvalidInputError, NoPokeDB
from nopokedb.cli.application import run
from nopokedb.copying import compare, copy, differences
from nopokedb.postgres.address import is_postgres

pytestmark = pytest.mark.engines("postgres")
Open = Callable[..., NoPokeDB]
DIM = 8


def address(engine: dict[str, Any]) -> str:
    return f"{engine['path']}#{engine['collection']}"


def fill(db: NoPokeDB, rng: np.random.Generator, count: int) -> None:
    metadatas: list[dict[str, Any]] = [{"n": n, "z": [1.0, None, "a\0b"], "big": 2**63} for n in range(count)]
    db.add_many(
        rng.standard_normal((count, DIM)),
        metadatas,
        ids=[n - 50 if n % 3 else f"é{n}" for n in range(count)],
        texts=[None if n % 5 == 0 else f"text number {n} \0" for n in range(count)],
    )


def both_ways(engine: dict[str, Any], tmp_path: Path, way: str) -> tuple[str, str]:
    """Source and target."""
    folder = str(tmp_path / "folder")
    return (folder, address(engine)) if way == "there" else (address(engine), folder)


@pytest.mark.parametrize("way", ["there", "back"])
def test_a_copy_is_the_same(
    engine: dict[str, Any], tmp_path: Path, rng: np.random.Generator, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every id, bit, key and text, and the settings, whichever way; a second copy into it is refused."""
    source, target = both_ways(engine, tmp_path, way)
    with NoPokeDB(dim=DIM, space="l2", path=source, text_language="de", M=8) as db:
        fill(db, rng, 300)
    assert run(["copy", source, target, "--verify", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["same"] and report["copied"] == report["count"] == 300 and report["recall"] == 1
    with NoPokeDB(path=source) as one, NoPokeDB(path=target) as two:
        assert dump(one) == dump(two)
        assert one._engine.settings_given() == two._engine.settings_given()
        assert one.add(np.ones(DIM)) == two.add(np.ones(DIM))
        two.delete(299 - 50)
    assert run(["copy", source, target]) == 2
    with NoPokeDB(path=target) as two:
        assert len(two) == 300


@pytest.mark.parametrize("way", ["there", "back"])
def test_a_copy_that_is_killed_goes_on(
    engine: dict[str, Any], tmp_path: Path, rng: np.random.Generator, way: str
) -> None:
    """kill -9 in the middle, several times: nothing is lost, nothing is there twice."""
    source, target = both_ways(engine, tmp_path, way)
    with NoPokeDB(dim=DIM, space="l2", path=source) as db:
        fill(db, rng, 400)
    slow = (
        "import sys; from nopokedb import copying; copying._BATCH_RECORDS = 10\n"
        "copying.copy(*sys.argv[1:3], resume=True, advance=lambda *_: (print(flush=True), sys.stdin.readline()))"
    )
    for rounds in (3, 1, 5):
        child = subprocess.Popen(
            [sys.executable, "-c", slow, source, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdin is not None and child.stdout is not None
        for _ in range(rounds):
            assert child.stdout.readline()
            child.stdin.write(b"\n")
            child.stdin.flush()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdin.close()
        child.stdout.close()
    if is_postgres(target):  # the server may still be ending the killed one's last batch

        def settled() -> bool:
            with NoPokeDB(path=target) as db:
                return len(db) % 10 == 0

        until(settled, "the last batch is whole or absent")
    report = copy(source, target, resume=True, verify=True)
    assert report.same and 0 < report.copied < 400
    assert copy(source, target, resume=True).copied == 0


def test_a_target_that_is_no_beginning_is_refused(
    engine: dict[str, Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    source, target = both_ways(engine, tmp_path, "there")
    with NoPokeDB(dim=DIM, space="l2", path=source) as db:
        fill(db, rng, 50)
    with NoPokeDB(dim=DIM, space="l2", path=target) as db:
        db.add_many(np.ones((2, DIM)), ids=[1_000, "a"])
    with pytest.raises(InvalidInputError, match="beginning"):
        copy(source, target, resume=True)


def test_verify_tells_a_difference(engine: dict[str, Any], tmp_path: Path, rng: np.random.Generator) -> None:
    """A record that was changed behind the copy's back has another checksum; the exit code says so."""
    source, target = both_ways(engine, tmp_path, "there")
    with NoPokeDB(dim=DIM, space="l2", path=source) as db:
        fill(db, rng, 30)
    copy(source, target)
    with NoPokeDB(path=target) as db:
        db.upsert(1 - 50, metadata={"n": 2})
    assert copy(source, target, resume=True, verify=True).same is False
    assert run(["copy", source, target, "--resume", "--verify"]) == 1


def test_graduate(
    engine: dict[str, Any], tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Copied, verified, asked; and what would differ."""
    source, target = both_ways(engine, tmp_path, "there")
    with NoPokeDB(dim=DIM, path=source, index="scan") as db:
        fill(db, rng, 200)
        db.snapshot("before")
    assert run(["graduate", source, target, "--queries", "20", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["copy"]["same"]
    overlap = {item["kind"]: item["overlap"] for item in told["queries"]}
    assert overlap["vector"] == 1
    assert overlap["text"] > 0.5 and overlap["hybrid"] > 0.5  # many texts here are equally good
    words = " ".join(told["differences"])
    assert "before" in words and "scan" in words
    assert run(["graduate", source, target, "--queries", "5", "--resume"]) == 0
    assert "overlap@10" in capsys.readouterr().out
    assert differences(target) == [] and len(compare(target, source, 40)) == 3  # all but surely one of them has a text

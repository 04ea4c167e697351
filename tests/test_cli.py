"""The command line: what each command prints, its exit codes, and that the documents know every option."""

from __future__ import annotations

import doctest
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from model import dump

import nopokedb
from nopokedb import NoPokeDB, distribution, errors
from nopokedb.cli import exit_codes
from nopokedb.cli.application import application, run
from nopokedb.cli.exit_codes import exit_code_of
from nopokedb.cli.output import plain

ROOT = Path(__file__).parent.parent
DIM = 4
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with NoPokeDB(dim=DIM, path=tmp_path / "db") as db:
        db.add_many(np.eye(DIM), [{"n": n} for n in range(DIM)], texts=["t"] * DIM)
    return tmp_path / "db"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def damage(folder: Path) -> None:
    with (folder / "vectors-1.f32").open("r+b") as file:
        file.write(b"\7" * DIM * 4)


def commands(group: click.Group = application, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def test_every_command_and_option_is_documented() -> None:
    """docs/command-line.md has a section per command with its arguments, and in it a row per option; and no others."""
    text = (ROOT / "docs" / "command-line.md").read_text()
    sections = dict(re.findall(r"^## `nopokedb ([a-z -]+?)(?: [A-Z][^\n]*)?`\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    assert set(sections) == {name for name, _ in commands()}
    for name, command in commands():
        options = {o for p in command.params if isinstance(p, click.Option) for o in p.opts if o.startswith("--")}
        assert set(re.findall(r"^\| `(--[a-z-]+)`", sections[name], re.M)) == options, name
        arguments = [p.human_readable_name for p in command.params if isinstance(p, click.Argument)]
        title = re.search(rf"^## `nopokedb {name}( .*)?`$", text, re.M)
        assert title and (title[1] or "").replace("...", "").split() == arguments, name
        assert command.help and all(p.help for p in command.params if isinstance(p, click.Option)), name
        assert "--json" in options or name == "mcp", name  # whose output is the protocol


def test_exit_codes_are_documented_and_every_error_has_one() -> None:
    """The table in docs/command-line.md is the table of the code, and no error of the library lacks a code."""
    text = (ROOT / "docs" / "command-line.md").read_text()
    assert dict(re.findall(r"^\| (\d+) \| (.*) \|$", text, re.M)) == {str(k): v for k, v in exit_codes.MEANINGS.items()}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.NoPokeError) and kind is not errors.NoPokeError:
            assert exit_code_of(kind("x")) in exit_codes.MEANINGS, kind
    assert exit_code_of(AssertionError()) is None
    particular = {
        errors.NeedsReopenError: 7,
        errors.OutcomeUnknownError: 7,
        errors.CorruptionError: 4,
        errors.DatabaseLockedError: 3,
        errors.CollectionNotFoundError: 5,
        errors.LegacyFolderError: 5,
        errors.ArchiveError: 6,
        errors.BatchTooLargeError: 2,
        OSError: 8,
    }
    assert {kind: exit_code_of(kind("x")) for kind in particular} == particular


def normal(text: str) -> str:
    """Numbers with a point, times, and the width of columns differ from run to run."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:+]+", "TIME", text)
    text = re.sub(r"\d[\d,]*\.\d+(e-?\d+)?|\d+ (?=B\b)", "0.0 ", text)
    return "".join(re.sub(r"[\s─━┏┳┓┡╇┩└┴┘]+", " ", line).strip() + "\n" for line in text.strip().splitlines())


def test_the_examples_of_the_documentation_run(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of docs/command-line.md, one after the other, with its exit code and what it prints; each command
    has one, but import-legacy, migrate and graduate, for which there is no folder and no server, and serve, which does
    not end. (tests/test_moving.py runs those of migrate.)"""
    text = (ROOT / "docs" / "command-line.md").read_text()
    checker = doctest.OutputChecker()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    shown = set()
    for block in re.findall(r"```console\n(.*?)```", text, re.S):
        for example in re.split(r"^\$ ", block, flags=re.M)[1:]:
            line, _, expected = example.partition("\n")
            command, _, code = line.partition("  # exit code ")
            if not command.startswith("nopokedb "):
                subprocess.run(command, shell=True, check=True)
                continue
            exit_code, out, err = cli(*shlex.split(command)[1:])
            assert exit_code == int(code or 0), (command, err)
            assert checker.check_output(normal(expected), normal(out), doctest.ELLIPSIS), f"{command}\n{out}"
            shown |= {name for name, _ in commands() if command.startswith(f"nopokedb {name}")}
    assert {name for name, _ in commands()} - shown == {"import-legacy", "migrate", "graduate", "mcp", "serve"}


def test_records_from_the_shell(cli: Run, tmp_path: Path) -> None:
    """Created, added, changed, read, counted, deleted; 1 and "1" are told apart, 64 bits stay."""
    folder = tmp_path / "new"
    assert json.loads(cli("create", folder, "--dim", 2, "--space", "l2", "--json")[1])["space"] == "l2"
    assert cli("create", folder, "--dim", 2)[0] == 2 and cli("create", tmp_path / "x")[0] == 2
    assert json.loads(cli("add", folder, "--vector", "1,2", "--json")[1])["id"] == 0
    big = 2**63 - 1
    for key in (str(big), '"1"', "1", "a"):
        assert cli("add", folder, "--vector", "[1, 2]", "--id", key, "--metadata", '{"n": 9007199254740993}')[0] == 0
    assert cli("add", folder, "--vector", "1,2", "--id", "1")[0] == 2
    assert cli("add", folder, "--vector", "1,2", "--id", "1", "--id-type", "str")[0] == 2
    code, out, _ = cli("get", folder, big, '"1"', 1, "a", "--json", "--include", "metadata,vector,text")
    found = json.loads(out)["records"]
    assert code == 0 and [r["id"] for r in found] == [big, "1", 1, "a"]
    assert found[0]["metadata"] == {"n": 9007199254740993} and found[0]["vector"] == [1, 2]
    assert cli("get", folder, "a", "b")[0] == 5 and cli("get", folder, "a", "--include", "x")[0] == 2
    update = ("--upsert", "--merge", "--metadata", '{"n": null, "m": 1}', "--text", "words")
    assert cli("add", folder, "--id", "a", *update)[0] == 0
    assert cli("add", folder, *update)[0] == 2 and cli("add", folder, "--merge")[0] == 2
    assert json.loads(cli("get", folder, "a", "--json")[1])["records"][0]["metadata"] == {"m": 1}
    (tmp_path / "filter").write_text('{"n": {"$gte": 1}}')
    assert cli("count", folder, "--where", f"@{tmp_path / 'filter'}")[1] == "3\n"
    assert cli("count", folder, "--where", "{")[0] == 2 and cli("count", folder, "--where", "@none")[0] == 8
    assert json.loads(cli("facet", folder, "n", "--json")[1])["values"] == [{"value": 9007199254740993, "count": 3}]
    assert cli("delete", folder)[0] == 2
    assert json.loads(cli("delete", folder, 1, '"1"', 77, "--dry-run", "--json")[1])["deleted"] == 2
    assert json.loads(cli("delete", folder, 1, "--json")[1]) == {
        "path": str(folder), "deleted": 1, "count": 4, "dry_run": False
    }  # fmt: skip
    assert cli("delete", folder, "--where", '{"n": {"$exists": true}}')[0] == 0
    assert cli("count", folder)[1] == "2\n"


def test_queries_from_the_shell(cli: Run, tmp_path: Path) -> None:
    """By vector however it is given, by words, by meaning where there is a model, by example, grouped, explained."""
    folder = tmp_path / "db"
    with NoPokeDB(path=folder, embed="wordllama") as db:
        texts = ["a kitten sleeps", "the car is fast", "trains and cars"]
        db.add_many(ids=["cat", "car", 3], texts=texts, metadatas=[{"t": 1}, {"t": 2}, {"t": 2}])
        db.snapshot("s")
        vector = db["cat"].vector
        db.delete(3)
    assert vector is not None
    np.save(tmp_path / "v.npy", vector)
    (tmp_path / "v.json").write_text(json.dumps(vector.tolist()))
    for given in (",".join(map(str, vector)), json.dumps(vector.tolist()), f"@{tmp_path}/v.npy", f"@{tmp_path}/v.json"):
        hits = json.loads(cli("query", folder, "--vector", given, "--json")[1])["hits"]
        assert hits[0]["id"] == "cat" and abs(hits[0]["distance"]) < 1e-6 and len(hits) == 2

    def asked(*arguments: object) -> list[Any]:
        return [hit["id"] for hit in json.loads(cli("query", folder, *arguments, "--json")[1])["hits"]]

    assert asked("--text", "feline pet") == ["cat", "car"]
    assert asked("--text", "feline pet", "--by", "meaning", "-k", 1) == ["cat"]
    assert asked("--text", "feline pet", "--by", "words") == []
    assert asked("--text", "vehicles", "--at", "s", "--where", '{"t": 2}') == [3, "car"]
    assert asked("--text", "car", "--alpha", "0.9")[0] == "car"
    assert asked("--like", "cat") == ["car"]
    groups = json.loads(cli("query", folder, "--text", "x", "--by", "meaning", "--group-by", "t", "--json")[1])[
        "groups"
    ]
    assert {group["key"] for group in groups} == {1, 2}
    assert "cat" in cli("query", folder, "--text", "kitten", "--group-by", "t")[1]
    plan = json.loads(cli("explain", folder, "--text", "kitten", "--json")[1])
    assert plan["query"] == "hybrid" and "stage" in cli("explain", folder, "--text", "kitten")[1]
    for wrong in (("--by", "words"), ("--vector", "1,x"), ("--text", "a", "--by", "both", "--like", "cat"), ()):
        assert cli("query", folder, *wrong)[0] == 2
    with NoPokeDB(path=folder):  # beside a writer
        assert asked("--text", "feline pet", "-k", 1) == ["cat"]


def test_import_and_export(cli: Run, folder: Path, tmp_path: Path) -> None:
    """There and back, bad rows, a dry run; what was left out is said. (test_transfer.py has the formats.)"""
    report = json.loads(cli("export", folder, tmp_path / "x.csv", "--where", '{"n": {"$gt": 0}}', "--json")[1])
    assert report["count"] == 3 and report["left_out"] == []
    assert cli("export", folder, tmp_path / "x.csv")[0] == 2
    assert cli("export", folder, tmp_path / "x.csv", "--overwrite")[0] == 0
    assert "ids, metadata, texts" in cli("export", folder, tmp_path / "x.npy")[1]
    assert cli("import", tmp_path / "x.csv", tmp_path / "again")[0] == 0
    with NoPokeDB(path=folder) as db, NoPokeDB(path=tmp_path / "again") as again:
        assert dump(db) == dump(again)
    assert "was imported already" in cli("import", tmp_path / "x.csv", tmp_path / "again")[1]
    (tmp_path / "bad.csv").write_text("key,a,e0,e1\n1,x,1,2\n2,y,1\n3,z,3,4\n")
    layout = ("--id", "key", "--vector", "e*", "--field", "a=b")
    code, out, _ = cli("import", tmp_path / "bad.csv", tmp_path / "new", *layout, "--dry-run", "--json")
    assert code == 1 and json.loads(out)["bad"] == [{"line": 3, "reason": "expected 4 cells, got 3"}]
    assert not (tmp_path / "new").exists()
    code, out, _ = cli("import", tmp_path / "bad.csv", tmp_path / "new", *layout)
    assert code == 1 and "--skip-bad" in out and "1 records imported" in out
    code, out, _ = cli("import", tmp_path / "bad.csv", tmp_path / "new", *layout, "--skip-bad", "--json")
    assert code == 1 and json.loads(out)["imported"] == 2 and json.loads(out)["resumed_at"] == 1
    assert json.loads(cli("get", tmp_path / "new", 3, "--json")[1])["records"] == [{"id": 3, "metadata": {"b": "z"}}]
    assert cli("import", tmp_path / "bad.csv", tmp_path / "new", "--field", "a", "--no-fields")[0] == 2
    (tmp_path / "x.parquet").write_bytes(b"x")
    assert cli("import", tmp_path / "x.parquet", tmp_path / "new")[0] == 6
    assert cli("import", tmp_path / "none.csv", tmp_path / "new")[0] == 8


def test_bench_demo_and_completion(cli: Run, folder: Path, tmp_path: Path) -> None:
    """Figures that fit together; questions with their right answers; scripts that shells accept."""
    document = json.loads(cli("bench", folder, "--queries", 30, "-k", 2, "--sample", 4, "--json")[1])
    assert document["queries"] == 30 and 0 < document["p50_ms"] <= document["p95_ms"] <= document["p99_ms"]
    assert document["recall"]["recall"] == 1.0 and document["qps"] > 0
    NoPokeDB(2, path=tmp_path / "empty").close()
    assert cli("bench", tmp_path / "empty")[0] == 2
    answers = json.loads(cli("demo", "--json")[1])["answers"]
    assert [answer["hits"][0]["metadata"]["module"] for answer in answers[:3]] == ["statistics", "random", "webbrowser"]
    assert cli("demo", "--path", folder)[0] == 2
    for shell in ("bash", "zsh", "fish"):
        assert "_NOPOKEDB_COMPLETE" in cli("completion", shell)[1]
    script = (
        cli("completion", "bash")[1]
        + '\nCOMP_WORDS=(nopokedb exp); COMP_CWORD=1; _nopokedb_completion nopokedb; echo "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False
    )
    assert set(done.stdout.split()) == {"explain", "export"}, done


def test_a_missing_extra_is_named(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Formats with libraries of their own say what to install, with the code for wrong usage."""
    monkeypatch.setitem(sys.modules, "nopokedb.transfer.hdf5", None)
    (tmp_path / "x.hdf5").write_bytes(b"")
    code, _, err = cli("import", tmp_path / "x.hdf5", tmp_path / "db")
    assert code == 2 and "nopokedb" in err


def test_info(cli: Run, folder: Path) -> None:
    """A table, or all of `stats()`; of a closed folder and beside a writer."""
    code, out, _ = cli("info", folder)
    assert code == 0 and re.search(r"count +│ 4", out)
    code, out, _ = cli("info", folder, "--json")
    assert code == 0 and json.loads(out)["count"] == 4
    with NoPokeDB(path=folder) as db:
        db.delete(0)
        assert json.loads(cli("info", folder, "--json")[1])["count"] == 3


def test_optimize(cli: Run, folder: Path) -> None:
    """What was deleted gives its space back; beside a writer it is refused."""
    with NoPokeDB(path=folder) as db:
        db.delete(0)
        assert cli("optimize", folder)[0] == 3
    code, out, _ = cli("optimize", folder, "--json")
    document = json.loads(out)
    assert code == 0 and (document["count"], document["indexed"], document["segments"]) == (3, 0, [])
    assert json.loads(cli("info", folder, "--json")[1])["row_count"] == 3
    code, out, _ = cli("optimize", folder)
    assert code == 0 and "3 records, 0 of them in 0 indexes" in out


def test_check_and_repair(cli: Run, folder: Path) -> None:
    """0 where nothing is wrong, 1 where something is, 0 after it was repaired."""
    code, out, _ = cli("check", folder)
    assert code == 0 and "no problems" in out
    assert cli("check", folder, "--quick")[0] == 0
    damage(folder)
    code, out, _ = cli("check", folder, "--json")
    document = json.loads(out)
    assert code == 1 and not document["clean"]
    assert [(p["kind"], p["offset"]) for p in document["problems"]] == [("vector", 0)]
    code, out, _ = cli("check", folder)
    assert code == 1 and "at byte 0" in out.replace("\n", "") and "1 error" in out
    code, out, _ = cli("check", folder, "--repair")
    assert code == 0 and "2 repaired" in out
    assert cli("check", folder)[0] == 0
    assert cli("check", folder, "--repair", "--quick")[0] == 2


def test_backup_and_restore(cli: Run, folder: Path, tmp_path: Path) -> None:
    """A chain of files and back, beside a writer too."""
    code, out, _ = cli("backup", folder, tmp_path / "full", "--json")
    assert code == 0 and json.loads(out)["count"] == DIM
    with NoPokeDB(path=folder) as db:
        db.delete(1)
        db.upsert(2, metadata={"new": 1})
        code, out, _ = cli("backup", folder, tmp_path / "inc", "--since", tmp_path / "full")
        assert code == 0 and "1 changed records and 1 deletions" in out
        lsn = json.loads(cli("info", folder, "--json")[1])["lsn"]
        assert cli("backup", folder, tmp_path / "by lsn", "--since", lsn - 1)[0] == 0
        content = dump(db)
    code, out, _ = cli("restore", tmp_path / "full", tmp_path / "inc", tmp_path / "again", "--json")
    assert code == 0 and json.loads(out)["count"] == DIM - 1
    with NoPokeDB(path=tmp_path / "again") as db:
        assert dump(db) == content
    assert cli("backup", folder, tmp_path / "full")[0] == 2
    assert cli("restore", tmp_path / "full", folder)[0] == 2
    (tmp_path / "full").write_bytes((tmp_path / "full").read_bytes()[:-1])
    code, out, err = cli("restore", tmp_path / "full", tmp_path / "more", "--json")
    error = json.loads(out)["error"]
    assert code == 6 and error["type"] == "ArchiveError" and error["file"] == str(tmp_path / "full")
    assert "ends early" in err


def test_import_legacy(cli: Run, tmp_path: Path) -> None:
    """A folder that 0.5.1 wrote; 1 because one vector was lost by it."""
    with tarfile.open(ROOT / "tests" / "data" / "legacy-0.5.1.tar.gz") as archive:
        archive.extractall(tmp_path / "old", filter="data")
    code, out, _ = cli("import-legacy", tmp_path / "old" / "cosine", tmp_path / "new", "--dry-run", "--json")
    assert code == 1 and json.loads(out)["imported"] == 41 and not (tmp_path / "new").exists()
    code, out, _ = cli("import-legacy", tmp_path / "old" / "l2", tmp_path / "new", "--space", "l2")
    assert code == 0 and re.search(r"imported +│ 9", out)
    assert cli("import-legacy", tmp_path / "old" / "l2", tmp_path / "other")[0] == 6
    assert cli("import-legacy", tmp_path / "old" / "l2", tmp_path / "other", "--space", "x")[0] == 2


def test_snapshots(cli: Run, folder: Path) -> None:
    """Made, listed, returned to, dropped."""
    assert json.loads(cli("snapshot", "create", folder, "one", "--json")[1])["count"] == DIM
    with NoPokeDB(path=folder) as db:
        content = dump(db)
        db.delete_many([0, 1])
        assert "one" in cli("snapshot", "list", folder)[1]
        assert cli("snapshot", "rollback", folder, "one")[0] == 3
    code, out, _ = cli("snapshot", "rollback", folder, "one", "--json")
    assert code == 0 and json.loads(out)["changed"] == 2
    with NoPokeDB(path=folder) as db:
        assert dump(db) == content
    assert cli("snapshot", "drop", folder, "one")[0] == 0
    assert cli("snapshot", "drop", folder, "one")[0] == 5
    assert json.loads(cli("snapshot", "list", folder, "--json")[1])["snapshots"] == []


def test_errors_have_their_codes(cli: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong usage, no collection, a writer, damage, a needed recovery, the system."""
    assert cli()[0] == 2 and cli("no-such-command")[0] == 2 and cli("info")[0] == 2
    assert cli("info", folder, "--no-such-option", "--json")[0] == 2
    assert cli("info", tmp_path / "none")[0] == 5
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "x").write_text("")
    assert cli("info", tmp_path / "theirs")[0] == 5
    db = NoPokeDB(path=folder)
    code, out, _ = cli("check", folder, "--json")
    assert code == 3 and json.loads(out)["error"]["type"] == "DatabaseLockedError"
    db.add(np.ones(DIM))
    shutil.copytree(folder, tmp_path / "killed")
    db.close()
    assert cli("info", tmp_path / "killed")[0] == 7
    assert cli("check", tmp_path / "killed")[0] == 0
    damage(folder)
    assert cli("backup", folder, tmp_path / "file")[0] == 4

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nopokedb, "restore", full)
    assert cli("restore", "a", "b")[0] == 8

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nopokedb, "restore", stop)
    assert cli("restore", "a", "b")[0] == 130


def test_help_and_version(cli: Run) -> None:
    code, out, _ = cli("--help")
    assert code == 0 and "import-legacy" in out
    assert cli("--version")[1].strip().endswith(nopokedb.__version__)


def test_stored_values_do_not_steer_the_terminal(cli: Run, tmp_path: Path) -> None:
    """Names with control characters or markup come out as text."""
    assert plain("a\x1b[31m\r\nb[bold]") == "a\\x1b[31m\\x0d\\x0ab[bold]"
    _, _, err = cli("info", str(tmp_path / "x\x1b[31m[red]y"))
    assert "\x1b" not in err and "[red]y" in err.replace("\n", "")


def test_runs_as_a_module_and_without_its_extra(folder: Path) -> None:
    """`python -m nopokedb`; without click it says how to install it, and the library works all the same."""
    module = [sys.executable, "-m", "nopokedb", "info", str(folder), "--json"]
    done = subprocess.run(module, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and json.loads(done.stdout)["count"] == DIM
    for missing in ("click", "rich"):
        code = (
            f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['nopokedb', 'info', 'x'];"
            "from nopokedb.__main__ import main; sys.exit(main())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and distribution.install_hint("cli") in done.stderr, done.stderr


def test_the_library_prints_nothing_by_itself(folder: Path, tmp_path: Path) -> None:
    """Warnings go to the logger `nopokedb`, which is silent unless somebody listens."""
    for file in (folder / "oplog").iterdir():
        file.write_bytes(file.read_bytes()[:20])
    code = f"import nopokedb; nopokedb.NoPokeDB(path={str(folder)!r}).close()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    handlers: list[Any] = logging.getLogger("nopokedb").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)

"""Repeats the original project's benchmark table beside today's peers, and computes the ratios aimed for.

Run from the root of the repository as `python -m bench.seed`; `--quick` is a smoke test of a few seconds.
Each backend runs in a process of its own, one after the other. A finished one is reused unless `--fresh` says
otherwise.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import datasets, goals, machine, peers, tables, worker
from bench.measure import say
from bench.scale import FULL, QUICK, K, Scale

ROOT = Path(__file__).resolve().parent.parent
ORIGINAL_FOLDER = ROOT / ".bench" / "nopokedb-0.5.1"
ORIGINAL_REQUIREMENTS = ("nopokedb==0.5.1", "hnswlib", "numpy")
NAMES = (*peers.SEED_PEERS, *worker.GOAL_RUNS)


@dataclass
class Collected:
    """Results by name; for what is missing the reason, and for what is reused the time it finished."""

    results: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    reused: dict[str, str] = field(default_factory=dict)
    failed: bool = False


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.seed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no download, results in a folder apart")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=NAMES, help=f"of: {' '.join(NAMES)}")
    parser.add_argument("--fresh", action="store_true", help="run again what has finished before")
    parser.add_argument("--upserts", type=int, metavar="N", help="number of metadata-only upserts")
    parser.add_argument("--png", type=Path, help="where the plot goes; docs/assets/seed.png unless --quick")
    child = parser.add_argument_group("one run in this process, as the driver starts it")
    child.add_argument("--run", metavar="NAME", choices=NAMES)
    child.add_argument("--data", type=Path, metavar="FILE.npz")
    child.add_argument("--out", type=Path, metavar="FILE.json")
    arguments = parser.parse_args(argv)
    if arguments.run and not (arguments.data and arguments.out):
        parser.error("--run needs --data and --out")
    return arguments


def _original_is_there(may_download: bool) -> bool:
    """Installs the original release into a folder of its own, unless it is there or must not be fetched."""
    if (ORIGINAL_FOLDER / "nopokedb" / "__init__.py").exists():
        return True
    if not may_download:
        return False
    say(f"installing {' '.join(ORIGINAL_REQUIREMENTS)} into {ORIGINAL_FOLDER}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(ORIGINAL_FOLDER)]
    return subprocess.run([*command, *ORIGINAL_REQUIREMENTS], check=False).returncode == 0


def _data_for(name: str, folder: Path, scale: Scale) -> Path:
    """The data set a run uses, made on first need."""
    if name == "bulk":
        make, count, dim = datasets.embedding_like, scale.bulk_count, scale.bulk_dim
    else:
        make, count, dim = datasets.gaussian, scale.seed_count, scale.seed_dim
    path = folder / f"{make.__name__}-{count}x{dim}-{scale.query_count}.npz"
    if not path.exists():
        say(f"making {path.name} and its exact answers")
        datasets.save(make(count, dim, scale.query_count, K), path)
    return path


def _run_child(name: str, data: Path, out: Path, arguments: argparse.Namespace) -> bool:
    """Runs one measurement in a process of its own; True when it wrote its result."""
    command = ["-m", "bench.seed", "--run", name, "--data", str(data), "--out", str(out)]
    command += ["--quick"] if arguments.quick else []
    command += ["--upserts", str(arguments.upserts)] if arguments.upserts else []
    environment = dict(os.environ)
    if worker.needs_original(name):
        # Without site-packages (-S, -s) and the current folder (-P), the only nopokedb on the path is the
        # original.
        command = ["-S", "-s", "-P", *command]
        environment["PYTHONPATH"] = os.pathsep.join([str(ORIGINAL_FOLDER), str(ROOT)])
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, check=False).returncode == 0


def _sizes(name: str, scale: Scale) -> dict[str, Any]:
    """What of the scale a result depends on."""
    return {key: value for key, value in asdict(scale).items() if name == "upserts" or not key.startswith("upsert_")}


def _collect(arguments: argparse.Namespace, scale: Scale, folder: Path) -> Collected:
    """Runs what is asked for and reuses what has finished before at the same sizes."""
    collected = Collected()
    for name in NAMES:
        wanted = not arguments.only or name in arguments.only
        stored = folder / "runs" / f"{name}.json"
        known = json.loads(stored.read_text()) if stored.exists() else {}
        if known.get("sizes") == _sizes(name, scale) and not (arguments.fresh and wanted):
            say(f"{name}: reused, finished {known['finished']}")
            collected.results[name] = known["result"]
            collected.reused[name] = known["finished"]
            continue
        if not wanted:
            collected.missing[name] = "not asked for"
            continue
        if worker.needs_original(name) and not _original_is_there(may_download=not arguments.quick):
            collected.missing[name] = f"nopokedb 0.5.1 is not installed in {ORIGINAL_FOLDER.relative_to(ROOT)}"
            collected.failed |= not arguments.quick
            say(f"{name}: skipped, {collected.missing[name]}")
            continue
        say(f"{name}: {worker.GOAL_RUNS.get(name, 'backend')}")
        out = folder / "scratch" / f"{name}.json"
        if not _run_child(name, _data_for(name, folder / "data", scale), out, arguments):
            collected.missing[name] = "failed"
            collected.failed = True
            say(f"{name}: failed")
            continue
        collected.results[name] = json.loads(out.read_text())
        finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        entry = {"sizes": _sizes(name, scale), "finished": finished, "result": collected.results[name]}
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(json.dumps(entry, indent=2) + "\n")
    return collected


def _report(collected: Collected, machine_facts: dict[str, object], scale: Scale, folder: Path, png: Path) -> None:
    """Writes results.json and table.md, prints the tables, and draws the plot."""
    rows = tables.backend_rows(collected.results)
    outcomes = goals.compare(collected.results)
    text = tables.markdown(rows, outcomes, collected.results, machine_facts, scale, collected.missing, collected.reused)
    summary = {
        "machine": machine_facts,
        "scale": asdict(scale),
        "runs": collected.results,
        "missing": collected.missing,
        "reused": collected.reused,
        "rows": [asdict(row) for row in rows],
        "goals": [asdict(goal) for goal in outcomes],
    }
    (folder / "results.json").write_text(json.dumps(summary, indent=2) + "\n")
    (folder / "table.md").write_text(text)
    print(text)
    written = [folder / "results.json", folder / "table.md"]
    if rows:
        from bench import plot  # here, because the children import this module and need no matplotlib

        plot.draw(collected.results, png, scale)
        written.append(png)
    say(f"wrote {', '.join(str(path) for path in written)}")


def main(argv: list[str] | None = None) -> int:
    """The exit code: 1 when something that was asked for failed."""
    arguments = _arguments(argv)
    scale = QUICK if arguments.quick else FULL
    if arguments.upserts:
        scale = replace(scale, upsert_count=arguments.upserts)
    if arguments.run:
        worker.run(arguments.run, arguments.data, arguments.out, arguments.out.with_suffix(""), scale)
        return 0
    folder = ROOT / ".bench" / ("seed-quick" if arguments.quick else "seed")
    folder.mkdir(parents=True, exist_ok=True)
    machine_facts = machine.describe(folder)
    collected = _collect(arguments, scale, folder)
    png = arguments.png or (folder / "seed.png" if arguments.quick else ROOT / "docs" / "assets" / "seed.png")
    _report(collected, machine_facts, scale, folder, png)
    return 1 if collected.failed else 0


if __name__ == "__main__":
    sys.exit(main())

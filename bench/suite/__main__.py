"""Measures search, ingestion, memory and scaling, beside other libraries and databases.

Run from the root of the repository as `python -m bench.suite`; `--quick` is a smoke test. Databases are prepared first
(`--prepare` does only that, also on a busy machine), then asked in turn. Everything that has finished at the same
sizes is reused, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from bench import machine
from bench.conversation import ROOT
from bench.peers import PEERS
from bench.report import markdown, write
from bench.suite import goals, parts, report
from bench.suite.parts import PARTS
from bench.suite.run import Run
from bench.suite.scale import FULL, QUICK

SLOWEST = ("search-1m",)
"""Parts that are only run when they are asked for by name."""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.suite", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results in a folder apart")
    parser.add_argument("--prepare", action="store_true", help="build and tune the databases, time nothing")
    parser.add_argument("--time", action="store_true", help="build only what --rebuild names; time what is there")
    parser.add_argument("--report", action="store_true", help="run nothing, report what there is")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of: {' '.join(PARTS)}")
    parser.add_argument("--skip", nargs="+", choices=PARTS, default=[], metavar="PART", help="all parts but these")
    parser.add_argument("--fresh", nargs="*", choices=PARTS, metavar="PART", help="time again (without names: all)")
    parser.add_argument("--backends", nargs="+", choices=PEERS, metavar="NAME", help=f"of: {' '.join(PEERS)}")
    parser.add_argument("--without", nargs="+", choices=PEERS, default=[], metavar="NAME", help="all but these")
    parser.add_argument("--rebuild", nargs="+", choices=PEERS, default=[], metavar="NAME", help="databases made again")
    parser.add_argument("--retune", nargs="+", choices=PEERS, default=[], metavar="NAME", help="settings found again")
    parser.add_argument("--folder", type=Path, help="where data, databases and results go; below .bench by default")
    parser.add_argument("--peers-python", type=Path, default=ROOT / ".venv-peers" / "bin" / "python")
    return parser.parse_args(argv)


def _run(arguments: argparse.Namespace, wanted: list[str], folder: Path) -> Run:
    fresh = [] if arguments.fresh is None else arguments.fresh or wanted
    names = arguments.backends or parts.default_backends()
    return Run(
        folder=folder,
        corpus=ROOT / ".bench" / "corpus",
        scale=QUICK if arguments.quick else FULL,
        backends=tuple(name for name in names if name not in arguments.without),
        peers_python=arguments.peers_python.absolute(),
        may_install=not arguments.quick,
        may_build=not arguments.time,
        fresh=frozenset(fresh),
        rebuilt=frozenset(arguments.rebuild),
        retuned=frozenset(arguments.retune),
    )


def main(argv: list[str] | None = None) -> int:
    """The exit code: 1 when something that was asked for failed."""
    arguments = _arguments(argv)
    folder = arguments.folder or ROOT / ".bench" / ("suite-quick" if arguments.quick else "suite")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = arguments.only or [name for name in PARTS if name not in (*arguments.skip, *SLOWEST)]
    run = _run(arguments, wanted, folder)
    facts = machine.describe(folder)
    if not arguments.report:
        for name in wanted:
            parts.prepare_part(name, run)
        run.rebuilt = run.retuned = frozenset()
        for name in () if arguments.prepare else wanted:
            parts.run_part(name, run)
    results = run.results()
    outcomes = goals.compare(results)
    body, title = report.tables(results), "Search, ingestion, memory and scaling"
    text = markdown(title, facts, arguments.quick, outcomes, body, run.missing)
    write(run, facts, asdict(run.scale), outcomes, text, report.draw(results, folder))
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())

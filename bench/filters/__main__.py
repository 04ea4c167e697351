"""Measures filters, full text and hybrid search, beside other embedded databases.

Run from the root of the repository as `python -m bench.filters`; `--quick` is a smoke test. Every part that has
finished at the same sizes is reused unless `--fresh` says otherwise, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

from bench import machine
from bench.conversation import ROOT
from bench.filters import goals, parts, report
from bench.filters.parts import PARTS
from bench.filters.run import Run
from bench.filters.scale import FULL, QUICK, Scale
from bench.peers import FILTER_PEERS
from bench.report import markdown, write


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.filters", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results in a folder apart")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of: {' '.join(PARTS)}")
    parser.add_argument("--skip", nargs="+", choices=PARTS, default=[], metavar="PART", help="all parts but these")
    parser.add_argument("--fresh", nargs="*", choices=PARTS, metavar="PART", help="run again (without names: all)")
    parser.add_argument("--rebuild", action="store_true", help="with --fresh: build the peers' databases again, too")
    parser.add_argument("--report", action="store_true", help="run nothing, report what there is")
    parser.add_argument("--backends", nargs="+", choices=FILTER_PEERS, default=FILTER_PEERS, metavar="NAME")
    parser.add_argument("--peers-python", type=Path, default=ROOT / ".venv-peers" / "bin" / "python")
    for name, kind, what in (
        ("count", int, "records that all databases filter"),
        ("large-count", int, "records of the larger collection"),
        ("round-count", int, "rounds through all settings"),
        ("round-s", float, "seconds of each setting in each round"),
        ("recall-s", float, "seconds of each pass while a search width is looked for"),
        ("document-count", int, "documents of the text part"),
    ):
        parser.add_argument(f"--{name}", type=kind, metavar="N", help=what)
    return parser.parse_args(argv)


def _scale(arguments: argparse.Namespace) -> Scale:
    scale = QUICK if arguments.quick else FULL
    given = {name: value for name, value in vars(arguments).items() if name in asdict(scale) and value is not None}
    return replace(scale, **given)


def main(argv: list[str] | None = None) -> int:
    """The exit code: 1 when something that was asked for failed."""
    arguments = _arguments(argv)
    folder = ROOT / ".bench" / ("filters-quick" if arguments.quick else "filters")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in arguments.only or PARTS if name not in arguments.skip]
    fresh = [] if arguments.fresh is None else arguments.fresh or wanted
    run = Run(
        folder=folder,
        corpus=ROOT / ".bench" / "corpus",
        scale=_scale(arguments),
        backends=tuple(arguments.backends),
        peers_python=arguments.peers_python.absolute(),
        fresh=frozenset(fresh),
        rebuild=arguments.rebuild,
    )
    facts = machine.describe(folder)
    if not arguments.report:
        for name in wanted:
            parts.run_part(name, run)
    results = run.results()
    outcomes = goals.compare(results)
    body, title = report.tables(results), "Filters, full text and hybrid search"
    text = markdown(title, facts, arguments.quick, outcomes, body, run.missing)
    write(run, facts, asdict(run.scale), outcomes, text, report.draw(results, folder))
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())

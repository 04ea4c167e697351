"""The long run, and the replay of one image.

    python -m crash                                  all scenarios, every image, recoveries of some
    python -m crash --scenario updates --seed 7      one of them
    python -m crash --image updates/strict/214/drop:198 --seed 7 [--trace FILE] [--keep FOLDER]

The last one says what is wrong with an image. Its name and seed are printed with a violation, and the file with the
operations, which gives exactly the same bytes again; without it the workload is run once more.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from crash import trace
from crash.enumeration import RECOVERY, Enumeration
from crash.recording import record, why_not
from crash.scenarios import SCENARIOS

_TITLES = ("scenario", "model", "points", "images built", "checked", "seconds")


def lines_of(done: Sequence[Enumeration]) -> Iterator[str]:
    """A table of what was done, and every violation."""
    rows: list[tuple[object, ...]] = [_TITLES]
    for made in done:
        rows += [(t.name, t.model, t.points, t.built, t.distinct, f"{t.seconds:.1f}") for t in made.tallies]
    tallies = [tally for made in done for tally in made.tallies]
    sums = [sum(getattr(t, name) for t in tallies) for name in ("points", "built")]
    checked = sum(made.checked for made in done)
    rows.append(("total", "", *sums, checked, f"{sum(t.seconds for t in tallies):.1f}"))
    widths = [max(len(str(row[at])) for row in rows) for at in range(len(_TITLES))]
    for row in rows:
        name, model, *numbers = (str(cell) for cell in row)
        cells = [name.ljust(widths[0]), model.ljust(widths[1])]
        cells += [cell.rjust(width) for cell, width in zip(numbers, widths[2:], strict=True)]
        yield "  ".join(cells)
    broken = [violation for made in done for violation in made.violations]
    yield f"violations: {len(broken)}"
    for made in done:
        for violation in made.violations[:20]:
            yield f"{violation}\n    python -m crash --image {violation.image} --seed {made.seed} --trace {made.trace}"


def run_long(names: Sequence[str], seed: int, share: int, recoveries: int, report: Path) -> bool:
    """Enumerate; True if no promise was broken."""
    done: list[Enumeration] = []
    text = ""
    for name in names:
        made = Enumeration(name, seed, share=share, sample=13 if recoveries else 0)
        made.run(record(name, seed))
        done.append(made)
        inner = made.recoveries(recoveries) if recoveries else None
        if inner is not None:
            done.append(inner)
        made.kept.clear()
        print("\n".join(lines_of(done[-2:] if inner else [made])), flush=True)
        # Written each time: the run is long, and what it found so far should outlive it.
        text = "\n".join([f"seed {seed}, {time.strftime('%Y-%m-%d %H:%M')}", *lines_of(done)])
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(text + "\n")
    print(text)
    return not any(made.violations for made in done)


def replay(image: str, seed: int, file: Path | None, keep: Path | None) -> bool:
    """Check one image; True if it keeps the promises."""
    name, model, number, kind = image.split("/")
    if file is None and name.endswith(RECOVERY):
        sys.exit("a recovery is repeated from its trace: give --trace")
    ops = trace.read(file) if file else record(name, seed)
    for at in range(max(0, int(number) - 20), int(number) + 1):
        print(f"{at:6} {ops[at]}")
    made = Enumeration(name, seed, only=(model, int(number), kind), sample=1, workers=1)
    made.run(ops, [model])
    print(f"{made.checked} image checked: {list(made.answers.values())}")
    if keep is not None:
        made.kept[0].write(keep)
        print(f"the folder is in {keep}")
    print("\n".join(str(violation) for violation in made.violations) or "no violation")
    return not made.violations


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m crash", description="power cuts at every file operation")
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS), help="default: all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--share", type=int, default=1, help="check one of so many images")
    parser.add_argument("--recoveries", type=int, default=20, help="recoveries recorded per scenario")
    parser.add_argument("--report", type=Path, default=Path("build/crash-report.txt"))
    parser.add_argument("--image", help="scenario/model/operation/kind of one image")
    parser.add_argument("--trace", type=Path, help="operations recorded earlier")
    parser.add_argument("--keep", type=Path, help="leave the folder of the image here")
    given = parser.parse_args()
    reason = why_not()
    if reason is not None:
        sys.exit(reason)
    if given.image:
        good = replay(given.image, given.seed, given.trace, given.keep)
    else:
        names = given.scenario or [name for name, scenario in SCENARIOS.items() if not scenario.planted_only]
        good = run_long(names, given.seed, given.share, given.recoveries, given.report)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

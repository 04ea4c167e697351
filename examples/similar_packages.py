"""What is installed here that does this, and what is like it? Over the descriptions of Debian's packages.

Everything that dpkg knows about the installed packages becomes one record each: the description as text, the rest as
metadata. Then questions by meaning, filters, counts, and packages like other packages. Run it with
`python examples/similar_packages.py`, or ask: `python examples/similar_packages.py "resize pictures"`. It needs the
extras "text" and "embed".
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nopokedb import F, Hit, NoPokeDB
from nopokedb.records import Part

STATUS = Path("/var/lib/dpkg/status")
QUESTIONS = ["compress files", "talk to another computer securely", "time zones and daylight saving"]
ALIKE = "gzip"


def fields_of(stanza: str) -> dict[str, str]:
    """The fields of one package; lines that begin with a space continue the field above."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1] in (" ", "\t"):
            fields[name] += "\n" + line.strip()
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def packages(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Id, text and metadata of each installed package. One that is installed for two architectures comes once."""
    seen = set()
    for stanza in path.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        fields = fields_of(stanza)
        name = fields.get("Package", "")
        if not name or name in seen or not fields.get("Status", "").endswith(" installed"):
            continue
        seen.add(name)
        needs = [part.split()[0] for part in fields.get("Depends", "").replace("|", ",").split(",") if part.strip()]
        yield (
            name,
            f"{name}: {fields.get('Description', '')}",
            {
                "section": fields.get("Section", "unknown").rpartition("/")[2],
                "kb": int(fields.get("Installed-Size") or 0),
                "needs": [need.partition(":")[0] for need in needs],
            },
        )


def show(title: str, hits: Sequence[Hit]) -> list[str]:
    print(f"\n{title}")
    for hit in hits:
        summary = (hit.text or "").splitlines()[0].partition(": ")[2]
        print(f"  {hit.id!s:<24} {hit.metadata['section']:<10} {hit.metadata['kb']:>8,} kB  {summary[:60]}")
    return [str(hit.id) for hit in hits]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Find installed packages of Debian, and what is like them.")
    parser.add_argument("questions", nargs="*", default=QUESTIONS, metavar="QUESTION")
    parser.add_argument("--status", type=Path, default=STATUS, help="where dpkg keeps what it knows (%(default)s)")
    options = parser.parse_args(argv)
    if not options.status.is_file():
        print(f"expected dpkg's list in {options.status}, found none: this example needs a Debian", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, NoPokeDB(path=folder, embed="wordllama") as db:
        ids, texts, metadatas = zip(*packages(options.status), strict=True)
        db.upsert_many(ids, texts=texts, metadatas=metadatas)
        largest = ", ".join(f"{section} {count}" for section, count in db.facet("section", limit=4))
        print(f"{len(db)} packages: {largest}, ...")
        include: tuple[Part, ...] = ("metadata", "text")
        for question in options.questions:
            show(question, db.query(question, k=3, text=question, include=include))
        if options.questions is QUESTIONS:
            small = F("kb").between(1, 500) & ~F("section").is_in(["libs", "libdevel"])
            show("compress files, small and no library", db.query("compress files", k=3, where=small, include=include))
            show(f"like {ALIKE}", db.query(like=[ALIKE], k=3, diversity=0.2, include=include) if ALIKE in db else [])
            print(f"\n{db.count({'needs': 'libc6'})} packages need libc6")
    return 0


if __name__ == "__main__":
    sys.exit(main())

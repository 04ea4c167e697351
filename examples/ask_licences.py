"""Ask the licences that every Debian keeps: what may I do, what must I do?

Each licence is cut into paragraphs, which are found by meaning and by words at once. The answer is a paragraph with the
licence and the line where it stands: what a program hands to a language model, or shows by itself. Run it with
`python examples/ask_licences.py`, or ask something else: `python examples/ask_licences.py "who owns the patents?"`.
It needs the extras "text" and "embed".
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nopokedb import NoPokeDB

FOLDER = Path("/usr/share/common-licenses")
QUESTIONS = [
    "may I charge money for a copy",
    "is there any warranty that the program works",
    "what happens to my rights if I violate the licence",
    "a patent lawsuit ends the patent licence",
]


def paragraphs(path: Path) -> Iterator[tuple[int, str]]:
    """Each paragraph with the number of its first line; headings and rules are too short to answer anything."""
    line = 1
    for part in re.split(r"(\n\s*\n)", path.read_text(encoding="utf-8", errors="replace")):
        text = " ".join(part.split())
        if len(text) > 60:
            yield line + part[: len(part) - len(part.lstrip())].count("\n"), text
        line += part.count("\n")


def build(db: NoPokeDB, folder: Path) -> int:
    """Store the paragraphs of all files; how many there are. Symbolic links are second names."""
    ids, texts, metadatas = [], [], []
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink()):
        for line, text in paragraphs(path):
            ids.append(f"{path.name}:{line}")
            texts.append(text)
            metadatas.append({"licence": path.name, "line": line})
    db.upsert_many(ids, texts=texts, metadatas=metadatas)
    return len(ids)


def ask(db: NoPokeDB, question: str, k: int = 3, where: dict[str, Any] | None = None) -> list[str]:
    """The best paragraph of each of the k best licences, as a table; the ids of these paragraphs."""
    print(f"\n{question}" + (f"   {where}" if where else ""))
    found = db.query(question, k=k, text=question, where=where, group_by="licence", include=("metadata", "text"))
    for group in found:
        (hit,) = group.hits
        place = f"{group.key}, line {hit.metadata['line']}"
        print(f"  {place:<22} {(hit.text or '')[:90]}")
    return [str(group.hits[0].id) for group in found]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Ask the licences that every Debian keeps.")
    parser.add_argument("questions", nargs="*", default=QUESTIONS, metavar="QUESTION")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="other text files to ask (default: %(default)s)")
    options = parser.parse_args(argv)
    if not options.folder.is_dir():
        print(f"expected text files in {options.folder}, found no such folder; name one with --folder", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, NoPokeDB(path=folder, embed="wordllama") as db:
        count = build(db, options.folder)
        print(f"{count} paragraphs of {len(db.facet('licence'))} files from {options.folder}")
        for question in options.questions:
            ask(db, question)
        if options.questions is QUESTIONS:
            ask(db, QUESTIONS[0], where={"licence": {"$starts_with": "MPL"}})
    return 0


if __name__ == "__main__":
    sys.exit(main())

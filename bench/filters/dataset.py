"""The data set of one size on disk: what every child process reads, whatever its environment has installed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import real
from bench.datasets import Floats
from bench.filters import cases as filters
from bench.filters import records
from bench.filters.cases import Case, Truth
from bench.filters.records import Column
from bench.measure import say


@dataclass(frozen=True)
class FilterData:
    """Vectors, their columns and titles, the queries, and per case the exact answers."""

    vectors: Floats
    queries: Floats
    titles: list[str]
    columns: dict[str, Column]
    truths: dict[str, Truth]
    recipe: str

    @property
    def cases(self) -> list[Case]:
        """The cases that the truth is known for."""
        return [case for case in filters.make_cases() if case.name in self.truths]

    @property
    def indexed(self) -> list[str]:
        """The fields that get a scalar index."""
        return records.indexed_fields(self.columns)

    def case(self, name: str) -> tuple[Case, Truth]:
        """The case of that name and its exact answers."""
        return next(case for case in self.cases if case.name == name), self.truths[name]

    def metadatas(self) -> list[dict[str, object]]:
        """One metadata object per record."""
        return records.metadata_of(self.titles, self.columns, slice(None))


def make(corpus_folder: Path, folder: Path, count: int, query_count: int) -> None:
    """Writes the data set into `folder`, unless it is there."""
    if (folder / "facts.json").exists():
        return
    made = real.load(corpus_folder, count, query_count)
    say(f"exact answers for {count:,} records")
    columns = records.columns_for(made.vectors)
    truths = filters.truths(filters.make_cases(), made.vectors, made.queries, columns)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "vectors.npy", made.vectors)
    arrays: dict[str, np.ndarray] = {"queries": made.queries}
    arrays |= {f"column {name}": column for name, column in columns.items()}
    for name, truth in truths.items():
        arrays |= {f"asked {name}": truth.queries, f"nearest {name}": truth.nearest, f"worst {name}": truth.worst}
    np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
    (folder / "titles.txt").write_text("\n".join(text[: records.TITLE_LENGTH] for text in made.texts))
    (folder / "facts.json").write_text(json.dumps({"recipe": made.recipe}))  # last: the others are whole


def read(folder: Path) -> FilterData:
    """Reads what `make` wrote; the vectors are mapped."""
    vectors: Floats = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    with np.load(folder / "arrays.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    columns = {name.removeprefix("column "): array for name, array in arrays.items() if name.startswith("column ")}
    names = [name.removeprefix("asked ") for name in arrays if name.startswith("asked ")]
    truths = {
        name: Truth(arrays[f"asked {name}"], arrays[f"nearest {name}"], arrays[f"worst {name}"]) for name in names
    }
    titles = (folder / "titles.txt").read_text().split("\n")
    recipe = str(json.loads((folder / "facts.json").read_text())["recipe"])
    return FilterData(vectors, arrays["queries"], titles, columns, truths, recipe)

"""Which file has which format, and the module that reads and writes it.

The modules of Arrow, Parquet and HDF5 need libraries of the extra "transfer" and are imported when they are used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, get_args

from nopokedb.errors import InvalidInputError
from nopokedb.transfer.layout import Layout
from nopokedb.transfer.rows import Content, Source

Format: TypeAlias = Literal["parquet", "arrow", "jsonl", "csv", "npy", "npz", "hdf5", "fvecs", "bvecs"]
FORMATS: tuple[Format, ...] = get_args(Format)
VECTORS_ONLY: frozenset[Format] = frozenset({"npy", "fvecs", "bvecs"})
"""Formats that have no room for ids, metadata and texts."""
_SUFFIXES: dict[str, Format] = {
    **{f".{name}": name for name in FORMATS},
    ".feather": "arrow",
    ".ipc": "arrow",
    ".ndjson": "jsonl",
    ".h5": "hdf5",
    ".hdf": "hdf5",
}


def format_of(path: Path, given: str | None = None) -> Format:
    """The format that was named, or the one of the file's suffix."""
    if given is not None:
        if given not in FORMATS:
            raise InvalidInputError(f"expected a format among {', '.join(FORMATS)}, got {given!r:.40}")
        return given
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise InvalidInputError(
            f"expected a file that ends in one of {', '.join(_SUFFIXES)}, got {path.name!r}; name its format"
        )
    return found


def open_source(path: Path, kind: Format, layout: Layout, *, strings: bool = False) -> Source:
    """The file, open for reading. `ArchiveError` if it is none of its format."""
    if kind == "jsonl":
        from nopokedb.transfer.jsonl import JsonlSource

        return JsonlSource(path)
    if kind == "csv":
        from nopokedb.transfer.csv import CsvSource

        return CsvSource(path, layout, strings)
    if kind == "parquet":
        from nopokedb.transfer.parquet import ParquetSource

        return ParquetSource(path)
    if kind == "arrow":
        from nopokedb.transfer.arrow import ArrowSource

        return ArrowSource(path)
    if kind == "hdf5":
        from nopokedb.transfer.hdf5 import Hdf5Source

        return Hdf5Source(path, layout.vector)
    if kind == "npy" or kind == "npz":
        from nopokedb.transfer.npy import NpySource, NpzSource

        return NpySource(path) if kind == "npy" else NpzSource(path, layout.vector)
    from nopokedb.transfer.vecs import VecsSource

    return VecsSource(path, kind)


def write_file(path: Path, kind: Format, content: Content) -> None:
    """Write all of the content to a new file."""
    if kind == "jsonl":
        from nopokedb.transfer.jsonl import write as write_rows
    elif kind == "csv":
        from nopokedb.transfer.csv import write as write_rows
    elif kind == "parquet":
        from nopokedb.transfer.parquet import write as write_rows
    elif kind == "arrow":
        from nopokedb.transfer.arrow import write as write_rows
    elif kind == "hdf5":
        from nopokedb.transfer.hdf5 import write as write_rows
    elif kind == "npy":
        from nopokedb.transfer.npy import write_npy as write_rows
    elif kind == "npz":
        from nopokedb.transfer.npy import write_npz as write_rows
    else:
        from nopokedb.transfer.vecs import write

        write(path, content, kind)
        return
    write_rows(path, content)

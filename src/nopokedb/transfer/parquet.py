"""Parquet: the columns are those of arrow.py. A row group is decoded piece by piece, and written as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nopokedb.transfer.arrow import PARTS, batch_of, rows_of, schema_of
from nopokedb.transfer.rows import Content, Row, Source, damaged, needed

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ModuleNotFoundError as error:
    raise ImportError(needed("pyarrow")) from error

_READ_ROWS = 1000


class ParquetSource(Source):
    """Rows of a Parquet file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(path, memory_map=False)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, FileNotFoundError | PermissionError):
                raise
            raise damaged(path, f"expected a Parquet file, got something else ({error})") from None
        self.columns = self._file.schema_arrow.names
        self.count = self._file.metadata.num_rows

    def rows(self, start: int) -> Iterator[Row]:
        metadata = self._file.metadata
        first = group = 0
        while group < metadata.num_row_groups and first + metadata.row_group(group).num_rows <= start:
            first += metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, metadata.num_row_groups))
        try:
            batches = self._file.iter_batches(_READ_ROWS, row_groups=groups, use_threads=False) if groups else iter(())
            yield from rows_of(batches, start, first)
        except (pa.ArrowException, OSError) as error:
            raise damaged(self._path, error) from None

    def close(self) -> None:
        self._file.close()


def write(path: Path, content: Content) -> None:
    """Write the records, a row group for each batch."""
    schema = schema_of(content)
    # A dictionary of floats saves nothing, and costs most of the time.
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["text"]) as writer:
        for records in content.batches(PARTS):
            writer.write_batch(batch_of(records, schema))

"""What the files of a collection say without opening it: for `check`, which compares it, and for repairs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nopokedb.embedded.storage.bitmap import Bitmap
from nopokedb.embedded.storage.frames import Frame
from nopokedb.embedded.storage.manifest import Manifest
from nopokedb.embedded.storage.metadata import Stored
from nopokedb.records import Vectors


def read_column(path: Path, dtype: Any, count: int) -> npt.NDArray[Any]:
    """As many of the first `count` entries as the file has; mapped, not read."""
    if not path.exists():
        return np.empty(0, dtype)
    there = min(count, path.stat().st_size // dtype.itemsize)
    return np.memmap(path, dtype, "r", shape=(there,)) if there else np.empty(0, dtype)


def vectors_path(folder: Path, manifest: Manifest) -> Path:
    """The file of the vectors."""
    return folder / f"vectors-{manifest.generation}.f32"


def read_vectors(folder: Path, manifest: Manifest, count: int) -> Vectors:
    """As many of the first `count` vectors as there are, shape (n, dim); mapped, not read."""
    dim = manifest.settings.dim
    vectors: Vectors = read_column(vectors_path(folder, manifest), np.dtype(("<f4", (dim,))), count).reshape(-1, dim)
    return vectors


def live_after(live: Bitmap, frames: Iterable[Frame]) -> Bitmap:
    """The live set behind these frames, which follow `live`."""
    for frame in frames:
        new = np.arange(frame.labels.start, frame.labels.stop)
        live = live.changed(new, frame.retired.astype(np.int64))
    return live


def versions_in(frames: Iterable[Frame]) -> dict[int, tuple[Stored, str | None]]:
    """The record versions that the frames write, by label, with their texts."""
    return {
        label: (Stored(label, id_, row, metadata, text is not None), text)
        for frame in frames
        for label, id_, row, metadata, text in zip(
            frame.labels, frame.ids, frame.rows.tolist(), frame.metadatas, frame.texts, strict=True
        )
    }

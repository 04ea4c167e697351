"""The scan kind: every row as a short code of 4-bit product-quantization, compared in SIMD registers.

Product quantization is from Jegou, Douze and Schmid, "Product Quantization for Nearest Neighbor Search" (2011);
the register-resident tables are from Andre, Kermarrec and Le Scouarnec, "Quicker ADC" (2019), as built into
FAISS. `IndexIVFPQFastScan` with a single list is used because it applies a bitmap of allowed rows inside the
scan. Codes take dim/4 bytes a row (dim/2 when fine).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from nopokedb.distances import Floats
from nopokedb.embedded.search.index import FaissIndex, deserialized
from nopokedb.embedded.search.options import BuildOptions

NEEDS_HOLDOUT = False
NESTED_LISTS = True
CENTRED = frozenset({"cosine", "l2", "ip"})
"""One query's order of dot products does not change when all rows are moved alike, and numbers near zero keep their
digits."""
MOVED_QUERIES = frozenset({"l2"})
MIN_DIM = 4
MAX_DIM = 4_096
_TRAINING_ROWS = 8_192
"""16 centroids per sub-quantizer: 512 samples each, and no gain was seen from more."""
_TRAINING_ROUNDS = 12
"""Of k-means. 25, which is FAISS' own, take half as long again, and no list became shorter by it."""
COARSE_MIN_DIM = 64
"""Below this, two dimensions a code lose too much (recall 0.74 at 8 dimensions)."""
_SEED = 20_260


class Scan(FaissIndex):
    """The codes, in one list."""

    def _parameters(self, ef: int, selector: Any) -> Any:
        """All of the single list, only the selected rows."""
        if selector is None:
            return None
        out = faiss.IVFPQSearchParameters()
        out.nprobe = 1
        out.sel = selector
        return out

    def bytes_for(self, ef: int) -> int:
        """Every code."""
        return self.count * int(self._index.code_size)


def build(vectors: Floats, options: BuildOptions) -> Scan:
    """Train on a sample and encode all rows."""
    count, dim = vectors.shape
    if dim % 2:
        vectors = np.pad(vectors, ((0, 0), (0, 1)))
        dim += 1
    codes = dim if options.fine or dim < COARSE_MIN_DIM else dim // 2
    metric = faiss.METRIC_L2 if options.space == "l2" else faiss.METRIC_INNER_PRODUCT
    quantizer = faiss.IndexFlat(dim, metric)
    quantizer.add(np.zeros((1, dim), np.float32))
    index = faiss.IndexIVFPQFastScan(quantizer, dim, 1, codes, 4, metric)
    index.own_fields = True  # the index frees its quantizer, not Python
    quantizer.this.disown()
    index.by_residual = False
    index.cp.seed = index.pq.cp.seed = _SEED
    index.pq.cp.niter = _TRAINING_ROUNDS
    if count > _TRAINING_ROWS:
        rows = np.random.default_rng(_SEED).choice(count, _TRAINING_ROWS, replace=False)
        index.train(np.ascontiguousarray(vectors[np.sort(rows)]))
    else:
        index.train(vectors)
    index.add(np.ascontiguousarray(vectors))
    return Scan(index)


def load(data: memoryview, beside: Path) -> Scan:
    """The codes that were serialised."""
    return Scan(deserialized(data))

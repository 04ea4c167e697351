"""From rows to a segment that keeps its promise: recipes are built and calibrated in turn, the first that reaches the
goal of recall is taken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import faiss
import numpy as np

from nopokedb.distances import Doubles, Floats
from nopokedb.embedded.search import scan, symphony
from nopokedb.embedded.search.calibration import SAMPLE, Truth, calibrate, truth_of_held_out, truth_of_rows
from nopokedb.embedded.search.cost import measure
from nopokedb.embedded.search.exact import Rows
from nopokedb.embedded.search.index import Bits
from nopokedb.embedded.search.options import BuildOptions
from nopokedb.embedded.search.segments import Segment, build_segment, needs_holdout

_log = logging.getLogger("nopokedb")

MIN_LIVE_ROWS = 64
"""Fewer live rows in a range tell nothing about an index over it, and are compared exactly in no time."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to build a segment."""

    kind: str
    fine: bool = False

    @property
    def slow(self) -> bool:
        """Whether it takes long enough to be built in a process of its own."""
        return self.kind != "scan"


@dataclass(frozen=True, slots=True)
class Source:
    """The rows [start, stop) that an index is to cover."""

    space: str
    start: int
    stop: int
    vectors: Floats
    """Of the rows [0, stop) or more."""
    norms: Doubles
    live: Rows
    """The live rows among them."""
    bits: Bits | None
    """The same as a bitmap, None if all are."""
    recent: Floats | None
    """What users asked lately."""


def scan_recipes(dim: int) -> list[Recipe]:
    """Scans in the order in which they are tried, none where they cannot be."""
    if not scan.MIN_DIM <= dim <= scan.MAX_DIM:
        return []
    return [Recipe("scan", fine=True)] if dim < scan.COARSE_MIN_DIM else [Recipe("scan"), Recipe("scan", fine=True)]


def graph_recipes(*, hnsw: bool) -> list[Recipe]:
    """Graphs in the order in which they are tried; only HNSW if that is asked for."""
    return [Recipe("hnsw")] if hnsw or not symphony.available() else [Recipe("symphony"), Recipe("hnsw")]


def construct(
    source: Source,
    recipes: Sequence[Recipe],
    M: int,
    ef_construction: int,
    should_stop: Callable[[], bool] = lambda: False,
    on_recipe: Callable[[Recipe], None] = lambda recipe: None,
) -> Segment | None:
    """The first segment of the recipes that reaches the goal; None if none does. Raises `Stopped`."""
    if len(source.live) < MIN_LIVE_ROWS:
        return None
    threads = faiss.omp_get_max_threads()
    with ThreadPoolExecutor(1, "nopokedb-truth", faiss.omp_set_num_threads, (threads,)) as beside:
        return _first_good(source, recipes, M, ef_construction, should_stop, on_recipe, beside)


def _first_good(
    source: Source,
    recipes: Sequence[Recipe],
    M: int,
    ef_construction: int,
    should_stop: Callable[[], bool],
    on_recipe: Callable[[Recipe], None],
    beside: ThreadPoolExecutor,
) -> Segment | None:
    """The true neighbours of the sample are looked for beside the build, in a thread of the same priority."""
    space, start, live, vectors = source.space, source.start, source.live, source.vectors
    truth_of_all: Callable[[], Truth] | None = None
    for recipe in recipes:
        on_recipe(recipe)
        held_out = None
        if needs_holdout(recipe.kind):
            chosen = np.random.default_rng(start).choice(live, min(SAMPLE, len(live) // 8), replace=False)
            held_out = np.sort(chosen) - start
            find = partial(truth_of_held_out, space, vectors, source.norms, live, held_out + start, source.recent)
            truth = _begun(beside, find)
        else:
            find = partial(truth_of_rows, space, vectors, source.norms, live, source.recent)
            truth = truth_of_all = truth_of_all or _begun(beside, find)
        options = BuildOptions(space, M, ef_construction, recipe.fine, should_stop)
        try:
            segment = build_segment(recipe.kind, start, vectors[start : source.stop], options, held_out)
        except (RuntimeError, MemoryError) as error:  # native code gave up: the next recipe, or exact
            _log.warning(
                "no %s index over rows %d to %d: %s",
                recipe.kind,
                start,
                source.stop,
                error,
                extra={"event": "index_not_built"},
            )
            continue
        options.raise_if_stopped()
        sample = truth()
        if calibrate(segment, sample, space, vectors, source.norms, source.bits):
            segment.cost = measure(segment, sample.prepared, space, vectors, source.norms, live, source.bits)
            if held_out is not None:
                segment.add_held_out(held_out, vectors[start : source.stop])
            return segment
    return None


def _begun(beside: ThreadPoolExecutor, find: Callable[[], Truth]) -> Callable[[], Truth]:
    """Its result, once that is asked for; found in another thread until then if one can be had."""
    try:
        return beside.submit(find).result
    except RuntimeError:  # the interpreter is ending, or the system's limit is reached
        return find

"""What a valid record is, and what reads return: ids, vectors, text, limits, `Record`, `Hit`.

Everything a caller hands in passes through this module once (metadata through metadata_json.py), above every engine, so
all engines accept and refuse alike. A check either returns the canonical form or raises an `InvalidInputError` that
says what was expected, what came, and what to do; nothing is changed before all checks of a call have passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from nopokedb.distances import squared_norms
from nopokedb.errors import (
    BatchTooLargeError,
    DuplicateIdError,
    InvalidIdError,
    InvalidInputError,
    InvalidMetadataError,
    InvalidVectorError,
)
from nopokedb.notebook import html_table, parts_table, record_text

Id: TypeAlias = int | str
Metadata: TypeAlias = dict[str, Any]
Space: TypeAlias = Literal["cosine", "l2", "ip"]
IndexKind: TypeAlias = Literal["auto", "exact", "scan", "graph", "hnsw"]
Durability: TypeAlias = Literal["full", "os"]
Part: TypeAlias = Literal["metadata", "vector", "text"]
Vectors: TypeAlias = npt.NDArray[np.float32]

MAX_DIM = 16_384
MAX_K = 100_000
MAX_ID_BYTES = 512
MAX_METADATA_BYTES = 16 * 2**20
MAX_METADATA_DEPTH = 64
MAX_TEXT_BYTES = 16 * 2**20
MAX_BATCH_BYTES = 256 * 2**20
"""Size of one atomic batch: its vectors, metadata and text together."""
MAX_SQUARED_NORM = 1e37
"""Float32 ends at 3.4e38; a squared distance can be four times a squared norm, and training native
quantizers needs a margin above that."""
MIN_COSINE_NORM = 1e-15
"""Below this a direction cannot be told from rounding noise."""

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


# --- what reads return ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One stored record. Parts that were not asked for with `include` are None."""

    id: Id
    metadata: Metadata | None = None
    vector: Vectors | None = None
    text: str | None = None
    cursor: str | None = None
    """Where a scan with `order_by` stands behind this record: hand it in as `after` to go on."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        mine, theirs = self.vector, other.vector
        return (
            (type(self.id), self.id, self.metadata, self.text) == (type(other.id), other.id, other.metadata, other.text)
            and (mine is None) == (theirs is None)
            and (mine is None or theirs is None or np.array_equal(mine, theirs))
        )

    __hash__ = None  # type: ignore[assignment]  # metadata is a dict

    def __repr__(self) -> str:
        return record_text(self.id, self.metadata, self.text, self.vector, self.cursor)

    def _repr_html_(self) -> str:
        return parts_table("record", self.id, {"metadata": self.metadata, "text": self.text, "vector": self.vector})


class Hit(dict[str, Any]):
    """One answer of a query: a dict (so it prints and serialises as one) whose keys are attributes too.

    `id`, `score` (larger is better) and `distance` (smaller is better, None if no vector was asked for) are always
    there; `metadata`, `text` and `vector` when `include` names them. `hit["vector"]` is a list of floats, so that
    `json.dumps(hits)` works; `hit.vector` is the float32 array. Hits of hybrid queries say what each side thought of
    them: `vector_score`, `vector_rank`, `text_score`, `text_rank` (None where that side did not rank it); `highlight`
    is there when asked for.
    """

    __slots__ = ()

    @property
    def id(self) -> Id:
        return self["id"]  # type: ignore[no-any-return]

    @property
    def score(self) -> float:
        return self["score"]  # type: ignore[no-any-return]

    @property
    def distance(self) -> float | None:
        return self["distance"]  # type: ignore[no-any-return]

    @property
    def vector_score(self) -> float | None:
        return self.get("vector_score")

    @property
    def vector_rank(self) -> int | None:
        return self.get("vector_rank")

    @property
    def text_score(self) -> float | None:
        return self.get("text_score")

    @property
    def text_rank(self) -> int | None:
        return self.get("text_rank")

    @property
    def highlight(self) -> str | None:
        return self.get("highlight")

    @property
    def metadata(self) -> Metadata:
        return self._part("metadata")  # type: ignore[no-any-return]

    @property
    def text(self) -> str | None:
        return self._part("text")  # type: ignore[no-any-return]

    @property
    def vector(self) -> Vectors:
        return np.asarray(self._part("vector"), dtype=np.float32)

    def _repr_html_(self) -> str:
        return parts_table("hit", self.id, {key: value for key, value in self.items() if key != "id"})

    def _part(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(f"this hit has no {name}: ask for it with include=({name!r},)")
        return self[name]


@dataclass(frozen=True, slots=True)
class Group:
    """Hits that share a value of the field given as `group_by`, best first."""

    key: str | int | float | bool | None
    """The value; None for records in which it is null or missing."""
    hits: list[Hit]

    def _repr_html_(self) -> str:
        rows = [(hit.id, f"{hit.score:.6g}", hit.get("metadata", "")) for hit in self.hits]
        return html_table(f"group {self.key!r}", ("id", "score", "metadata"), rows)


# --- settings and small arguments -------------------------------------------------------------------------


def check_choice(name: str, value: object, choices: Any) -> None:
    """`value` is one of the strings of the Literal type `choices`."""
    allowed = get_args(choices)
    if not isinstance(value, str) or value not in allowed:
        raise InvalidInputError(f"expected {name} to be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_fraction(name: str, value: object) -> float:
    """`value` is a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not 0 <= value <= 1:
        raise InvalidInputError(f"expected {name} to be a number from 0 to 1, got {shown(value)}")
    return float(value)


def shown(value: object) -> str:
    """A value as it stands in a message. Python refuses to print very long ints."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an int of {value.bit_length()} bits"
    return f"{value!r:.200}"


def check_int(name: str, value: object, low: int, high: int) -> int:
    """`value` is an integer (not a bool) within [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise InvalidInputError(f"expected {name} to be an int from {low} to {high}, got {shown(value)}")
    return int(value)


_PARTS = frozenset(get_args(Part))


def check_include(include: Sequence[str]) -> tuple[Part, ...]:
    """The parts to return; any of metadata, vector, text."""
    if type(include) is tuple and all(part.__class__ is str for part in include) and _PARTS.issuperset(include):
        return include
    if isinstance(include, str) or not hasattr(include, "__iter__"):
        raise InvalidInputError(f"expected include to be a tuple of names, got {include!r}")
    include = tuple(include)
    for part in include:
        check_choice("each name in include", part, Part)
    return tuple(include)  # type: ignore[arg-type]


# --- ids --------------------------------------------------------------------------------------------------


def check_id(value: object) -> Id:
    """An int of 64 bits (NumPy integers too) or a non-empty str of at most 512 UTF-8 bytes."""
    if isinstance(value, bool) or not isinstance(value, int | str | np.integer):
        raise InvalidIdError(f"expected an id to be an int or a str, got {type(value).__name__} {value!r:.80}")
    if isinstance(value, str):
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidIdError(f"expected a str id to be valid Unicode, got {value!r:.80} ({error})") from None
        if not 1 <= size <= MAX_ID_BYTES:
            raise InvalidIdError(f"expected a str id of 1 to {MAX_ID_BYTES} UTF-8 bytes, got {size}")
        return str.__str__(value)
    if not _INT64_MIN <= value <= _INT64_MAX:
        raise InvalidIdError(f"expected an int id within 64 bits (signed), got {shown(value)}")
    return int(value)


def check_sequence_of_ids(values: object) -> None:
    """`values` can be iterated over and is not one id."""
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__") or getattr(values, "ndim", 1) != 1:
        raise InvalidIdError(f"expected a sequence of ids, got {type(values).__name__} {shown(values)}")


def check_ids(values: Iterable[object]) -> list[Id]:
    """The ids as a list, each valid and none twice."""
    check_sequence_of_ids(values)
    given: list[Any]
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "iuUO":
            raise InvalidIdError(f"expected ids that are ints or strs, got an array of {values.dtype}")
        given = values.tolist()
    else:
        given = list(values)
    if set(map(type, given)) == {int}:
        # The common case, checked at C speed.
        if min(given) < _INT64_MIN or max(given) > _INT64_MAX:
            given = [check_id(value) for value in given]
    else:
        given = [check_id(value) for value in given]
    if len(set(given)) != len(given):
        seen: set[Id] = set()
        for id_ in given:
            if id_ in seen:
                raise DuplicateIdError(f"expected every id once in one call, got {id_!r} twice")
            seen.add(id_)
    return given


def id_order(id_: Id) -> tuple[int, int | bytes]:
    """Sort key of mixed ids: ints first, by value, then strs by their UTF-8 bytes."""
    return (1, id_.encode()) if isinstance(id_, str) else (0, id_)


# --- vectors ----------------------------------------------------------------------------------------------


_FLOAT32 = np.dtype("<f4")


def as_array(values: object) -> npt.NDArray[Any]:
    """What NumPy makes of a value: sequences, `__array__`, DLPack. Raises `InvalidVectorError`."""
    try:
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            return np.from_dlpack(values)
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError, RuntimeError, BufferError) as error:
        # The last two are how tensors say that they are on another device, or need a gradient.
        raise InvalidVectorError(f"expected numbers of one shape, got what NumPy refuses: {error}") from None


def _to_float32(values: object) -> Vectors:
    """The array of float32, converted once. Precision may be lost; a value that overflows becomes Inf."""
    if type(values) is np.ndarray and values.dtype == _FLOAT32 and values.flags.c_contiguous:
        return values
    array = as_array(values)
    if array.dtype.kind not in "fiu":
        raise InvalidVectorError(
            f"expected real numbers (float or int), got dtype {array.dtype}; convert them before the call"
        )
    with np.errstate(over="ignore", under="ignore"):
        return np.ascontiguousarray(array, dtype="<f4")


def check_vector(value: object, dim: int, space: str) -> Vectors:
    """One vector of shape (dim,), finite, within the norm limits of the space."""
    vector = _to_float32(value)
    if vector.shape != (dim,):
        raise InvalidVectorError(f"expected a vector of shape ({dim},), got {vector.shape}")
    wide = vector.astype(np.float64)
    squared = float(wide @ wide)
    if not squared <= MAX_SQUARED_NORM or (space == "cosine" and squared < MIN_COSINE_NORM**2):
        _raise_for_norm(vector, squared, space, "")
    return vector


def check_vectors(values: object, dim: int, space: str) -> Vectors:
    """Vectors of shape (n, dim), n >= 1, each finite and within the norm limits of the space."""
    vectors = _to_float32(values)
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InvalidVectorError(f"expected vectors of shape (n, {dim}), got {vectors.shape}")
    if not len(vectors):
        raise InvalidVectorError("expected at least one vector, got an empty batch")
    squared = squared_norms(vectors)
    wrong = ~(squared <= MAX_SQUARED_NORM)
    if space == "cosine":
        wrong |= squared < MIN_COSINE_NORM**2
    if wrong.any():
        at = int(np.argmax(wrong))
        _raise_for_norm(vectors[at], float(squared[at]), space, f" at position {at}")
    return vectors


def _raise_for_norm(vector: Vectors, squared: float, space: str, where: str) -> None:
    bad = np.flatnonzero(~np.isfinite(vector))
    if len(bad):
        raise InvalidVectorError(
            f"expected finite float32 values, got {vector[bad[0]]} in component {bad[0]} of the vector{where}"
        )
    if squared > MAX_SQUARED_NORM:
        raise InvalidVectorError(
            f"expected a squared norm of at most {MAX_SQUARED_NORM:g}, got {squared:g} for the vector{where}; "
            "scale the vectors down"
        )
    raise InvalidVectorError(
        f"expected a norm of at least {MIN_COSINE_NORM:g} under {space!r}, got {math.sqrt(squared):g} for the "
        f"vector{where}: a zero vector has no direction"
    )


# --- texts and batches -------------------------------------------------------------------------------------


def check_text(text: object) -> str | None:
    """None, or a str of valid Unicode of at most 16 MiB."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidMetadataError(f"expected text to be a str or None, got {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidMetadataError(f"expected text to be valid Unicode, got {text!a:.80} ({error.reason})") from None
    if size > MAX_TEXT_BYTES:
        raise InvalidMetadataError(f"expected text of at most {MAX_TEXT_BYTES} UTF-8 bytes, got {size}")
    return str.__str__(text)


def check_lengths(**lengths: int | None) -> int:
    """All given lengths agree and are not 0; the length."""
    given = {name: length for name, length in lengths.items() if length is not None}
    if len(set(given.values())) > 1:
        listed = ", ".join(f"{length} {name}" for name, length in given.items())
        raise InvalidInputError(f"expected as many of each, got {listed}")
    if not given:
        raise InvalidInputError(f"expected at least one of {', '.join(lengths)}, got none")
    if not (length := next(iter(given.values()))):
        raise InvalidInputError("expected at least one record, got an empty batch")
    return length


def check_batch_bytes(size: int) -> None:
    """A batch is one frame of the log and is written whole."""
    if size > MAX_BATCH_BYTES:
        raise BatchTooLargeError(
            f"expected an atomic batch of at most {MAX_BATCH_BYTES} bytes, got {size}; "
            "hand in fewer records, or an iterator, which is written in chunks of batch_size"
        )

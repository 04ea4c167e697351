"""Histories of calls, and whether one order of them explains all that they returned.

The collection is one object: a map from a few keys to versions. A call may tell something of the state before it, and
may change it; a batch does so as a whole. A history is *linearizable* if every call can be given one moment between its
beginning and its end so that, done at these moments one after the other, the calls return what they returned. For whole
batches and reads of several keys this includes that a thread reads its own writes, that no batch is seen in part, and
that each key by itself is linearizable.

The search is the one of Wing and Gong (1993) with the memory of Lowe (2017): take any call that began before the first
pending one ended, go back where that leads nowhere, and never try the same calls with the same state twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PRESENT = -1
"""Seen of a key: some version, it is not known which."""
_MOST_STEPS = 5_000_000
State = tuple[int | None, ...]
"""By key: the version, None where there is no record."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call. Times are of one clock for all processes."""

    began: int
    ended: int
    what: str
    seen: dict[int, int | None] = field(default_factory=dict)
    """What it says of the state before it."""
    changes: dict[int, int | None] = field(default_factory=dict)
    count: int | None = None
    """How many keys have a record, where it says so."""
    certain: bool = True
    """False: it did not return, so it happened at some moment or not at all."""


@dataclass(slots=True)
class _Event:
    place: int
    """Of the call among all."""
    end: _Event | None = None
    """The end of the call that begins here; None: this is an end."""
    before: _Event | None = None
    after: _Event | None = None


def explain(calls: Sequence[Call], keys: int) -> str | None:
    """None if the history is linearizable; else what cannot be explained."""
    head = _events(calls)
    state: State = (None,) * keys
    done = 0
    taken: list[tuple[_Event, int, State, int]] = []
    """What was decided: a call, which of its outcomes, and the state and the calls before it."""
    tried: set[tuple[int, State]] = set()
    most, stuck = -1, ""
    at, outcome, steps = head.after, 0, 0
    while head.after is not None:
        steps += 1
        assert at is not None and steps < _MOST_STEPS, "the search does not end"
        if at.end is None:  # this call had to come earlier: something was decided wrongly
            if len(taken) > most:
                most, stuck = len(taken), f"{calls[at.place]} does not fit to the state {state}"
            if not taken:
                return stuck
            at, outcome, state, done = taken.pop()
            _put_back(at)
            outcome += 1
        call = calls[at.place]
        mask = done | 1 << at.place
        outcomes = [_after(state, call), *([] if call.certain else [state])]
        new = None
        while outcome < len(outcomes) and ((new := outcomes[outcome]) is None or (mask, new) in tried):
            outcome, new = outcome + 1, None
        if new is None:
            at, outcome = at.after, 0
        else:
            tried.add((mask, new))
            taken.append((at, outcome, state, done))
            _take_out(at)
            state, done, at, outcome = new, mask, head.after, 0
    return None


def _after(state: State, call: Call) -> State | None:
    """The state after the call, None if it contradicts what the call has seen."""
    for key, version in call.seen.items():
        if state[key] is None if version == PRESENT else state[key] != version:
            return None
    if call.count is not None and call.count != sum(version is not None for version in state):
        return None
    if not call.changes:
        return state
    new = list(state)
    for key, version in call.changes.items():
        new[key] = version
    return tuple(new)


def _events(calls: Sequence[Call]) -> _Event:
    """Beginnings and ends in order of time, as a list from which calls are taken out and put back."""
    ends = [_Event(place) for place in range(len(calls))]
    order = [(call.ended, 1, ends[place]) for place, call in enumerate(calls)]
    order += [(call.began, 0, _Event(place, ends[place])) for place, call in enumerate(calls)]
    head = last = _Event(-1)
    for *_, event in sorted(order, key=lambda each: each[:2]):
        event.before, last.after = last, event
        last = event
    return head


def _take_out(event: _Event) -> None:
    for each in (event, event.end):
        assert each is not None and each.before is not None
        each.before.after = each.after
        if each.after is not None:
            each.after.before = each.before


def _put_back(event: _Event) -> None:
    for each in (event.end, event):
        assert each is not None and each.before is not None
        each.before.after = each
        if each.after is not None:
            each.after.before = each


# --- from what processes wrote down ----------------------------------------------------------------------------------


class Log:
    """Calls as they begin and end, in a file that a kill leaves whole."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, **line: Any) -> None:
        """One line, by one call of the system, so that threads do not mix theirs."""
        self._file.write(json.dumps(line).encode() + b"\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines; a last one that a kill cut off is left out."""
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def calls_of(lines: Iterable[dict[str, Any]], settled: int) -> Iterator[Call]:
    """The calls of one process that was killed; what it had begun is decided by the moment `settled`."""
    begun: dict[Any, dict[str, Any]] = {}
    for line in lines:
        if "began" in line:
            begun[line["call"]] = line
        elif "ended" in line:
            first = begun.pop(line["call"])
            yield Call(
                first["began"],
                line["ended"],
                first["what"],
                _by_key(line["seen"]),
                _by_key(line["changes"]),
                line["count"],
            )
    for line in begun.values():
        if line["changes"]:
            yield Call(
                line["began"], settled, line["what"], _by_key(line["seen"]), _by_key(line["changes"]), certain=False
            )


def _by_key(told: dict[str, Any]) -> dict[int, int | None]:
    return {int(key): version for key, version in told.items()}

"""Python's pickle format, read as data.

Unpickling runs what the file says. This does not: `pickletools` splits the bytes into instructions, and those that
build plain values are followed. A class in the file becomes its name, an object the name and what it would have been
made of; nothing is imported or called. All other instructions are refused.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any, Final

_MARK: Final = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT")
) | frozenset(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"))
_IGNORED = frozenset({"PROTO", "FRAME"})


@dataclass(frozen=True, slots=True)
class Name:
    """A class or a function that the file names."""

    module: str
    name: str


@dataclass(slots=True)
class Inert:
    """An object that was not made."""

    of: Any
    arguments: Any
    state: Any = None


def read_inert(data: bytes) -> Any:
    """The value: dicts, lists, sets, numbers, strs, `Name` and `Inert`. Raises ValueError for anything else."""
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            machine.step(opcode.name, argument)
        if len(machine.stack) != 1 or machine.stack[0] is _MARK:
            raise ValueError("it does not end with one value")
        return machine.stack[0]
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"its instructions do not fit together ({error})") from None


class _Machine:
    """The stack machine that pickles are written for, without what is dangerous in it."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        if name in _IGNORED or name == "STOP":
            return
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self.stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[int(argument)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self._memo[int(argument)])
        else:
            self._build(name, argument)

    def _build(self, name: str, argument: Any) -> None:
        """Collections, and objects that stay names."""
        stack = self.stack
        if name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_SET"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}[name]())
        elif name in ("SETITEM", "APPEND"):
            value = stack.pop()
            if name == "APPEND":
                stack[-1].append(value)
            else:
                key = stack.pop()
                stack[-1][key] = value
        elif name in ("SETITEMS", "APPENDS", "ADDITEMS", "TUPLE"):
            items = self._marked()
            if name == "TUPLE":
                stack.append(tuple(items))
            elif name == "SETITEMS":
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            else:
                (stack[-1].extend if name == "APPENDS" else stack[-1].update)(items)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            items, stack[-count:] = stack[-count:], []
            stack.append(tuple(items))
        elif name == "GLOBAL":
            stack.append(Name(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(Name(module, attribute))
        elif name in ("NEWOBJ", "REDUCE"):
            arguments, of = stack.pop(), stack.pop()
            stack.append(Inert(of, arguments))
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        else:
            raise ValueError(f"it has the instruction {name}")

    def _marked(self) -> list[Any]:
        """What stands above the last mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

"""Random records and filters that are made to disagree: odd keys, odd values, lists everywhere."""

from __future__ import annotations

import random
from typing import Any

KEYS = ["a", "b", "c", "a.b", 'q"x', "b\\s", "", "$id", "é", "0", "x y", "n\x01", "z\0", "'; DROP TABLE records;--"]
SCALARS: list[Any] = [
    *(None, True, False, 0, 1, 1.0, -0.0, 2, 2.5, -3, 2**63, 2**64 - 1, 2**53 + 1, float(2**53), 1e300, 5e-324),
    *("", "a", "A", "ab", "[1]", '["a"]', "{}", '{"a":1}', "\\", "|", "[", "{", "é", "\0", "a\0b", "true", "1"),
    *("x%y", "x_y", "*", "[a]", "?", "draft", "\U0010ffff", 'say "draft"', "a" * 600, "a" * 601, "a" * 512 + "b"),
]
ORDERED = [value for value in SCALARS if isinstance(value, str | int | float) and not isinstance(value, bool)]
TEXTS = [value for value in SCALARS if isinstance(value, str)]
PATTERNS = [
    "%",
    "a%",
    "_",
    "%b",
    "a_",
    "",
    "x\\%y",
    "x\\_y",
    "*",
    "[%",
    "%\0%",
    "%[a]%",
    "é",
    "%\\\\%",
    "_%_",
    "A",
    "?",
]


class Maker:
    """Everything from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def key(self) -> str:
        return self.random.choice(KEYS[:4] if self.random.random() < 0.8 else KEYS)

    def value(self, depth: int = 0) -> Any:
        chance = self.random.random()
        if depth < 3 and chance < 0.15:
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 3))]
        if depth < 3 and chance < 0.35:
            return self.metadata(depth + 1)
        return self.random.choice(SCALARS)

    def metadata(self, depth: int = 0) -> dict[str, Any]:
        return {self.key(): self.value(depth + 1) for _ in range(self.random.randint(0, 4))}

    def path(self) -> str:
        steps = [self.key() for _ in range(self.random.choice([1, 1, 1, 2, 2, 3]))]
        escaped = [step.replace("\\", "\\\\").replace(".", "\\.").replace("$", "\\$") for step in steps]
        return ".".join(escaped)

    def condition(self) -> dict[str, Any]:
        """One operator on one field."""
        pick = self.random.choice
        path = "$id" if self.random.random() < 0.05 else self.path()
        kind = pick([str, (int, float)])
        same_kind = [value for value in ORDERED if isinstance(value, kind)]
        operands = {
            **dict.fromkeys(("$eq", "$ne", "$contains"), pick(SCALARS)),
            **dict.fromkeys(("$exists", "$is_null"), self.random.random() < 0.5),
            **dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), pick(ORDERED)),
            **{name: [pick(SCALARS) for _ in range(self.random.randint(0, 4))] for name in ("$in", "$nin")},
            **{name: [pick(SCALARS) for _ in range(3)] for name in ("$contains_any", "$contains_all")},
            "$between": [pick(same_kind), pick(same_kind)],
            "$starts_with": pick(TEXTS),
            "$like": pick(PATTERNS),
        }
        operator = pick(sorted(operands))
        if operator == "$eq" and self.random.random() < 0.5:
            return {path: operands[operator]}
        return {path: {operator: operands[operator]}}

    def where(self, depth: int = 0) -> dict[str, Any]:
        """Conditions, combined."""
        chance = self.random.random()
        if depth < 3 and chance < 0.3:
            parts = [self.where(depth + 1) for _ in range(self.random.randint(1, 3))]
            return {self.random.choice(["$and", "$or"]): parts}
        if depth < 3 and chance < 0.4:
            return {"$not": self.where(depth + 1)}
        if chance < 0.5:
            return {**self.condition(), **self.condition()}
        return self.condition()

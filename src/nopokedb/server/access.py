"""Who calls, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from nopokedb.server.refusals import ForbiddenError

Role: TypeAlias = Literal["read", "write", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what those before it may."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request, once their key is known."""

    name: str
    role: Role
    collections: frozenset[str] | None = None
    """The only collections they may see; None: all."""

    def sees(self, collection: str) -> bool:
        return self.collections is None or collection in self.collections

    def check(self, role: Role, collection: str | None) -> None:
        """Raise `ForbiddenError` unless the caller has this role, and may use this collection. None: something that is
        about all collections."""
        if ROLES.index(self.role) < ROLES.index(role):
            raise ForbiddenError(f"expected a key with the role {role}, got one with the role {self.role}")
        if self.collections is not None and (collection is None or collection not in self.collections):
            what = "all collections" if collection is None else f"the collection {collection!r:.150}"
            raise ForbiddenError(f"expected a key for {what}, got one for other collections only")


ANYBODY = Caller("anybody", "admin")
"""The caller where no keys are set, which only a loopback address may do."""

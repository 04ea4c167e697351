"""One request on its way to a route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from nopokedb.errors import InvalidInputError
from nopokedb.server.access import Caller
from nopokedb.server.rest.bodies import media_type, read_json
from nopokedb.server.rest.replies import Receive, Scope
from nopokedb.server.service import Service


@dataclass(slots=True)
class Call:
    """What a handler gets."""

    service: Service
    caller: Caller
    scope: Scope
    receive: Receive

    @property
    def name(self) -> str:
        """The collection in the path."""
        return self.scope["path_params"]["name"]  # type: ignore[no-any-return]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return self.scope["headers_by_name"]  # type: ignore[no-any-return]

    @property
    def media_type(self) -> bytes:
        """The content type, without its parameters."""
        return media_type(self.headers)

    @property
    def request_id(self) -> str:
        return self.scope["request_id"].decode()  # type: ignore[no-any-return]

    def path(self, name: str) -> str:
        return self.scope["path_params"][name]  # type: ignore[no-any-return]

    async def body(self) -> Any:
        return await read_json(self.receive, self.headers, self.service)

    def options(self, *known: str) -> dict[str, str]:
        """The query string; every name once, and known."""
        found: dict[str, str] = {}
        text = self.scope["query_string"].decode("latin-1")
        if not text:
            return found
        try:
            given = parse_qs(text, keep_blank_values=True, max_num_fields=16)
        except ValueError as error:
            raise InvalidInputError(f"expected at most 16 options after ?, got more ({error})") from None
        for name, values in given.items():
            if name not in known:
                listed = f"only {', '.join(known)}" if known else "nothing"
                raise InvalidInputError(f"expected {listed} after ?, got {name!r:.80}")
            if len(values) > 1:
                raise InvalidInputError(f"expected {name} once after ?, got it {len(values)} times")
            found[name] = values[0]
        return found

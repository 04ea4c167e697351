"""`OpenAICompatible`: any server that answers POST /v1/embeddings as OpenAI's does (extra "client").

Only the address that the user names is contacted: no proxies of the environment, no redirects. The key goes into one
header and nowhere else.
"""

from __future__ import annotations

import math
import random
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import orjson

from nopokedb.distribution import install_hint
from nopokedb.errors import InvalidInputError, InvalidVectorError, UnavailableError
from nopokedb.records import MAX_DIM, Vectors, check_int, shown

if TYPE_CHECKING:
    import httpx

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LONGEST_ASKED_S = 0.5, 8.0, 60.0
"""Pauses before another attempt double from the first to the longest. A server may ask for a longer one (Retry-After)
up to the last; a longer wish ends the attempts."""
_REQUEST_CHARACTERS = 250_000
"""A request holds texts of so many characters at most, unless one text is longer: servers limit the tokens of one."""
_NUMBER_BYTES = 32
"""No server writes a component in more."""
_SAID_CHARACTERS = 300


class OpenAICompatible:
    """A model behind POST `url`/embeddings.

    Args:
        url: the address of the API, such as "https://api.openai.com/v1" or "http://127.0.0.1:8080/v1".
        model: the server's name of the model.
        api_key: sent as a bearer token; in no repr, log or error.
        dimensions: asks the server for shorter vectors, where the model can make them.
        batch_size: texts of one request, at most.
        timeout_s: seconds that one request may take.
        retries: how often a request is sent again after 429, 5xx or a broken connection, with growing pauses.
        name: what collections remember it as; None: "openai:" and the model's name.

    Raises: ImportError without httpx; `InvalidInputError` for an address that is none. When called: `InvalidInputError`
    if the server refuses the request, `UnavailableError` if it cannot be reached or keeps failing, `InvalidVectorError`
    if it answers anything but one vector per text.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        dimensions: int | None = None,
        batch_size: int = 128,
        timeout_s: float = 60.0,
        retries: int = 5,
        name: str | None = None,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise ImportError(f"OpenAICompatible needs httpx: {install_hint('client')}") from error
        if not isinstance(model, str) or not model:
            raise InvalidInputError(f"expected the name of a model of the server, got {shown(model)}")
        if api_key is not None and not (isinstance(api_key, str) and all("!" <= sign <= "~" for sign in api_key)):
            raise InvalidInputError("expected api_key to be a str of ASCII without spaces, got something else")
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
            raise InvalidInputError(f"expected timeout_s to be a number of seconds above 0, got {shown(timeout_s)}")
        self._url = _address(url)
        self._model = model
        self._key = api_key or ""
        self._dim = None if dimensions is None else check_int("dimensions", dimensions, 1, MAX_DIM)
        self._asked = {} if dimensions is None else {"dimensions": self._dim}
        self.batch_size = check_int("batch_size", batch_size, 1, 100_000)
        self._retries = check_int("retries", retries, 0, 100)
        self.name = name or f"openai:{model}"
        self._client = httpx.Client(
            headers={"content-type": "application/json"} | ({"authorization": f"Bearer {api_key}"} if api_key else {}),
            timeout=float(timeout_s),
            trust_env=False,  # no proxies, and no other password than the key
            follow_redirects=False,
        )
        weakref.finalize(self, self._client.close)

    def __repr__(self) -> str:
        return f"OpenAICompatible({self._url!r}, {self._model!r})"

    def __call__(self, texts: list[str]) -> Vectors:
        """Vectors of shape (len(texts), dim), float32, in the order of the texts."""
        parts = [self._vectors(part) for part in _parts(texts, self.batch_size)]
        return np.concatenate(parts) if parts else np.empty((0, self._dim or 0), np.float32)

    def close(self) -> None:
        """Give the connections up."""
        self._client.close()

    def _vectors(self, texts: list[str]) -> Vectors:
        body = orjson.dumps({"model": self._model, "input": texts, "encoding_format": "float", **self._asked})
        limit = 2**20 + len(texts) * MAX_DIM * _NUMBER_BYTES
        data = self._answer(body, limit)
        try:
            items = orjson.loads(data)["data"]
            order = [item["index"] for item in items]
            rows = [item["embedding"] for item in items]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise self._wrong(f"a list of embeddings, got something else ({type(error).__name__})") from None
        if len(items) != len(texts) or any(type(at) is not int for at in order) or set(order) != set(range(len(texts))):
            raise self._wrong(f"one vector for each of {len(texts)} texts, got {len(items)}, or others than asked for")
        try:
            found = np.array(rows, np.float64)
        except (ValueError, TypeError):
            raise self._wrong("vectors of numbers, all of one length, got others") from None
        if found.ndim != 2 or not 0 < found.shape[1] <= MAX_DIM or not np.isfinite(found).all():
            raise self._wrong(f"vectors of finite numbers, got shape {found.shape}")
        if self._dim is None:
            self._dim = found.shape[1]
        if found.shape[1] != self._dim:
            raise self._wrong(f"vectors of dimension {self._dim}, got {found.shape[1]}")
        vectors = np.empty(found.shape, np.float32)
        vectors[order] = found
        return vectors

    def _answer(self, body: bytes, limit: int) -> bytes:
        """The body of a successful answer; asked again where that may help."""
        import httpx

        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                with self._client.stream("POST", self._url, content=body) as response:
                    data = _read(response, limit)
            except httpx.TransportError as error:
                if last:
                    words = self._said(str(error).encode())
                    raise UnavailableError(f"{self!r} cannot be reached: {type(error).__name__}: {words}") from None
                _pause(attempt, None)
                continue
            if data is None:
                raise self._wrong(f"at most {limit} bytes, got more")
            if response.status_code == 200:
                return data
            words = f"{self!r} answers {response.status_code}: {self._said(data)}"
            if response.status_code != 429 and response.status_code < 500:
                raise InvalidInputError(words)
            if last or not _pause(attempt, response.headers.get("retry-after")):
                raise UnavailableError(words)
        raise AssertionError("unreachable")

    def _said(self, data: bytes) -> str:
        """What somebody says, for an error message: short, and without the key, which some repeat."""
        text = " ".join(data[:4096].decode(errors="replace").split())
        return (text.replace(self._key, "***") if self._key else text)[:_SAID_CHARACTERS]

    def _wrong(self, words: str) -> InvalidVectorError:
        return InvalidVectorError(f"expected {self!r} to answer {words}")


def _address(url: object) -> str:
    """The address of the one request."""
    import httpx

    try:
        parsed = httpx.URL(url)  # type: ignore[arg-type]  # a TypeError is caught
    except (httpx.InvalidURL, TypeError):
        raise InvalidInputError(f"expected the address of an API, got {type(url).__name__} that is none") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo or parsed.query or parsed.fragment:
        raise InvalidInputError(
            "expected an address such as 'https://api.openai.com/v1', without a user, query or fragment (a key is "
            "given as api_key), got another"
        )
    text = str(parsed).rstrip("/")
    return text if text.endswith("/embeddings") else text + "/embeddings"


def _parts(texts: list[str], size: int) -> Iterator[list[str]]:
    """The texts in order, so many and so long as one request may hold."""
    part: list[str] = []
    characters = 0
    for text in texts:
        if part and (len(part) == size or characters + len(text) > _REQUEST_CHARACTERS):
            yield part
            part, characters = [], 0
        part.append(text)
        characters += len(text)
    if part:
        yield part


def _read(response: httpx.Response, limit: int) -> bytes | None:
    """The body, None if it is longer than that."""
    parts, size = [], 0
    for part in response.iter_bytes():
        parts.append(part)
        size += len(part)
        if size > limit:
            return None
    return b"".join(parts)


def _pause(attempt: int, asked: str | None) -> bool:
    """Wait before the next attempt; False if the server wants a longer wait than anybody should take."""
    seconds = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt) * random.uniform(0.5, 1.0)  # not all at once
    if asked is not None and asked.strip().isdigit():
        seconds = float(asked)
        if seconds > _LONGEST_ASKED_S:
            return False
    time.sleep(seconds)
    return True

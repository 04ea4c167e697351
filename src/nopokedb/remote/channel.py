"""gRPC: operations as calls on one channel, which carries any number of them at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import orjson

from nopokedb.errors import NoPokeError
from nopokedb.records import Record
from nopokedb.remote.address import Address
from nopokedb.remote.failures import AnswerLostError, NotBegunError, TimeOverError, error_of
from nopokedb.rpc import nopokedb_pb2 as pb
from nopokedb.rpc.asked import fill
from nopokedb.rpc.methods import ERROR_KEY, METHODS, SCAN, Method
from nopokedb.rpc.told import record_of
from nopokedb.server import refusals, requests

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),  # what is safe to send again is decided in failures.py
    ("grpc.use_local_subchannel_pool", 1),  # a handle of its own has a connection of its own
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.enable_http_proxy", 0),
)
_NEVER_SENT = ("failed to connect", "connection refused", "name resolution", "dns resolution", "handshak", "ssl_error")


class ChannelTransport:
    """See `Transport`."""

    def __init__(self, address: Address, api_key: str | None) -> None:
        self._address = address
        self._metadata = () if api_key is None else (("authorization", f"Bearer {api_key}"),)
        if address.secure:
            authorities = os.environ.get("SSL_CERT_FILE")
            roots = None if authorities is None else Path(authorities).read_bytes()
            self._channel = grpc.secure_channel(address.target, grpc.ssl_channel_credentials(roots), _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(address.target, _OPTIONS)
        self._calls: dict[str, tuple[Method, Callable[..., Any]]] = {
            method.operation: (
                method,
                self._channel.unary_unary(method.path, method.asked.SerializeToString, method.reply.FromString),
            )
            for method in METHODS
        }
        self._scan = self._channel.unary_stream(SCAN, pb.ScanRequest.SerializeToString, pb.ScanReply.FromString)

    def call(self, operation: str, collection: str, request: Any, timeout_s: float) -> Any:
        """See `Transport.call`."""
        method, call = self._calls[operation]
        message = fill(method.asked(), request)
        if collection and "collection" in method.asked.DESCRIPTOR.fields_by_name:
            message.collection = collection
        try:
            reply = call(message, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._raised(error) from None
        return method.read(reply, request)

    def scan(self, collection: str, request: requests.ScanAll, timeout_s: float) -> Iterator[Record]:
        """See `Transport.scan`."""
        message = fill(pb.ScanRequest(collection=collection), request)
        pages = self._scan(message, metadata=self._metadata)
        try:
            next(pages)  # empty: the state has been taken
        except grpc.RpcError as error:
            raise self._raised(error) from None
        return self._records(pages)

    def _records(self, pages: Any) -> Iterator[Record]:
        try:
            for page in pages:
                for message in page.records:
                    yield record_of(message)
        except grpc.RpcError as error:
            raise self._raised(error) from None
        finally:
            pages.cancel()

    def close(self) -> None:
        self._channel.close()

    def _raised(self, error: Any) -> NoPokeError:
        """What the server raised, or what became of the call."""
        for name, value in error.trailing_metadata() or ():
            if name == ERROR_KEY:
                return error_of(orjson.loads(value))
        code, details = error.code(), error.details() or ""
        where = self._address.server
        if code is grpc.StatusCode.UNAVAILABLE and any(words in details.lower() for words in _NEVER_SENT):
            return NotBegunError(f"expected a server at {where}, but it cannot be reached: {details}")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            if "larger" in details:
                return refusals.TooLargeError(f"expected a smaller message for {where}: {details}")
            return refusals.TooManyRequestsError(f"expected fewer calls at once for {where}: {details}")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return TimeOverError(f"expected an answer of {where} in time, got none")
        if code in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.UNKNOWN,
        ):
            return AnswerLostError(f"expected an answer of {where}, got none: {code.name} {details}")
        return NoPokeError(f"expected an answer of a NoPokeDB server at {where}, got {code.name}: {details}")

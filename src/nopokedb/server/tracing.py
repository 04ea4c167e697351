"""Spans for OpenTelemetry, only if asked for (--opentelemetry). Where they go is said by its own OTEL_* variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from nopokedb.distribution import install_hint


class Tracing(Protocol):
    """What a transport does around a request."""

    def span(self, method: str, path: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]: ...
    def name(self, operation: str, status: int) -> None:
        """Say what the request of the current span was, once that is known."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class NoTracing:
    """Nothing is recorded."""

    def span(self, method: str, path: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
        return nullcontext()

    def name(self, operation: str, status: int) -> None:
        return

    def close(self) -> None:
        return


class Spans:
    """A span per request, below the one that the client names in its `traceparent` header."""

    def __init__(self) -> None:
        try:
            from opentelemetry import propagate, trace
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
        except ModuleNotFoundError as error:
            raise ImportError(f"--opentelemetry needs {error.name}: {install_hint('opentelemetry')}") from None
        exporter: SpanExporter
        if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "console":
            exporter = ConsoleSpanExporter()
        else:
            try:
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            except ModuleNotFoundError as error:
                raise ImportError(f"--opentelemetry needs {error.name}: {install_hint('opentelemetry')}") from None
            exporter = OTLPSpanExporter()
        self._provider = TracerProvider(resource=Resource.create({"service.name": "nopokedb"}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("nopokedb.server")
        self._propagate, self._trace = propagate, trace

    def span(self, method: str, path: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
        context = self._propagate.extract(headers)
        attributes = {"http.request.method": method, "url.path": path}
        return self._tracer.start_as_current_span(
            method, context, kind=self._trace.SpanKind.SERVER, attributes=attributes
        )

    def name(self, operation: str, status: int) -> None:
        span = self._trace.get_current_span()
        span.update_name(operation)
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)

    def close(self) -> None:
        self._provider.shutdown()

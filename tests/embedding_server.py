"""A server that answers POST /v1/embeddings as OpenAI's does, on a real socket; told beforehand what else to answer."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes]]


class EmbeddingServer(ThreadingHTTPServer):
    """Answers by `vector_of`; each of `planned` answers one request in its place."""

    daemon_threads = True

    def __init__(self, vector_of: Callable[[str], list[float]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.vector_of = vector_of
        self.planned: deque[Answer] = deque()
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        """Path, headers and body of each."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: EmbeddingServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        if self.server.planned:
            status, headers, data = self.server.planned.popleft()(body)
            if status == 0:  # hang up
                self.close_connection = True
                return
        else:
            status, headers, data = 200, {}, answer(map(self.server.vector_of, body["input"]))
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


def answer(vectors: Any) -> bytes:
    """The body of an answer, last vector first: the order is that of `index`, not of the list."""
    items = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
    return json.dumps({"object": "list", "data": items[::-1]}).encode()


@contextmanager
def serving(vector_of: Callable[[str], list[float]]) -> Iterator[EmbeddingServer]:
    server = EmbeddingServer(vector_of)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

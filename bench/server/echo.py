"""An endpoint of the same framework that does nothing: the body comes back as it is. Prints its address."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from fastapi import FastAPI, Request, Response


def application() -> FastAPI:
    """The endpoint, with nothing around it."""
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body(), media_type="application/json")

    return app


def main() -> None:
    """Serve it as the server is served: uvicorn with httptools and uvloop, no logs, one process."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        application(),
        http="httptools",
        loop="uvloop",
        lifespan="off",
        access_log=False,
        log_level="error",
        server_header=False,
        date_header=False,
    )
    asyncio.Runner(loop_factory=config.get_loop_factory()).run(uvicorn.Server(config).serve(sockets=[listening]))


if __name__ == "__main__":
    main()

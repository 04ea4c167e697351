"""`python -m bench.server.rpc`: queries a second over gRPC, beside what grpc.aio reaches that only echoes the message.

The load comes from processes of their own, each with one connection and several calls at once; server and load share
the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import grpc
import grpc.aio
import numpy as np
import orjson

from bench.datasets import Floats
from bench.server.__main__ import FOLDER, JUDGED, K, build, process, report, wait_for_indexes
from nopokedb.rpc import nopokedb_pb2 as pb
from nopokedb.rpc.methods import SERVICE

ECHO = "/bench.Echo/Echo"
_WARM_S = 1.0


async def echo() -> None:
    """An endpoint of the same framework that does nothing, on one event loop as the server is; prints its address."""

    async def same(message: bytes, context: Any) -> bytes:
        return message

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("bench.Echo", {"Echo": grpc.unary_unary_rpc_method_handler(same)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"grpc://127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def messages(queries: Floats, count: int, where: dict[str, Any] | None) -> list[bytes]:
    """Requests, ready to send: packing them is not what is measured."""
    encoded = None if where is None else orjson.dumps(where)
    asked = [pb.QueryRequest(collection=f"c{count}", vector=row.tobytes(), k=K, where=encoded) for row in queries]
    return [message.SerializeToString() for message in asked]


async def _load(target: str, path: str, payloads: list[bytes], calls: int, seconds: float) -> dict[str, Any]:
    """What one process measures: its calls and their milliseconds after a warm-up."""
    times: list[float] = []
    errors = 0
    async with grpc.aio.insecure_channel(target, (("grpc.use_local_subchannel_pool", 1),)) as channel:
        call = channel.unary_unary(path)
        begin = time.perf_counter() + _WARM_S
        end = begin + seconds

        async def ask(number: int) -> None:
            nonlocal errors
            at = number
            while (now := time.perf_counter()) < end:
                try:
                    await call(payloads[at % len(payloads)])
                except grpc.aio.AioRpcError:
                    errors += 1
                if now >= begin:
                    times.append((time.perf_counter() - now) * 1e3)
                at += calls

        await asyncio.gather(*(ask(number) for number in range(calls)))
    return {"times": times, "errors": errors}


def _worker(pipe: Connection, target: str, path: str, payloads: list[bytes], calls: int, seconds: float) -> None:
    pipe.send(asyncio.run(_load(target, path, payloads, calls, seconds)))


def load(address: str, path: str, payloads: list[bytes], processes: int, calls: int, seconds: float) -> dict[str, Any]:
    """What all processes together measure."""
    spawned = multiprocessing.get_context("spawn")
    started = []
    for number in range(processes):
        here, there = spawned.Pipe(duplex=False)
        mine = payloads[number::processes]
        arguments = (there, address.partition("://")[2], path, mine, calls, seconds)
        worker = spawned.Process(target=_worker, args=arguments)
        worker.start()
        started.append((worker, here))
    found = [pipe.recv() for _, pipe in started]
    for worker, _ in started:
        worker.join()
    times = np.concatenate([item["times"] for item in found])
    return {
        "qps": len(times) / seconds,
        "p50_ms": float(np.quantile(times, 0.5)),
        "p99_ms": float(np.quantile(times, 0.99)),
        "errors": sum(item["errors"] for item in found),
    }


def measure(queries: Floats, count: int, where: Any, shape: tuple[int, int], seconds: float, rounds: int) -> Any:
    """Query and echo in turn, so that both meet the same moods of the machine; medians."""
    payloads = messages(queries, count, where)
    serve = ("-m", "nopokedb", "serve", str(FOLDER / "collections"), "--port", "0", "--grpc-port", "0", "--json")
    with process(*serve, last="}") as document, process("-m", "bench.server.rpc", "--echo") as plain:
        address = json.loads(document)["grpc"]
        answers, echoes = [], []
        for _ in range(rounds):
            answers.append(load(address, f"/{SERVICE}/Query", payloads, *shape, seconds))
            echoes.append(load(plain, ECHO, payloads, *shape, seconds))
    found = {name: statistics.median(item[name] for item in answers) for name in ("qps", "p50_ms", "p99_ms")}
    echo_qps = statistics.median(item["qps"] for item in echoes)
    return found | {"echo_qps": echo_qps, "ratio": found["qps"] / echo_qps, "errors": sum(a["errors"] for a in answers)}


def main() -> int:
    """Print a Markdown table; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.server.rpc", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test: few records, short rounds")
    parser.add_argument("--echo", action="store_true", help="be the endpoint that echoes")
    chosen = parser.parse_args()
    if chosen.echo:
        asyncio.run(echo())
        return 0
    count, seconds, rounds = (5_000, 1.0, 1) if chosen.quick else (100_000, 8.0, 3)
    FOLDER.mkdir(parents=True, exist_ok=True)
    queries = build(count, 256)
    wait_for_indexes(count)
    rows = (
        (
            f"{name} | {shape[0]} x {shape[1]}",
            where is None and shape[0] * shape[1] >= JUDGED,
            measure(queries, count, where, shape, seconds, rounds),
        )
        for name, where in (("vector", None), ("a tenth passes", {"group": {"$lt": 10}}))
        for shape in ((1, 1), (2, 8), (2, 32), (4, 50))
    )
    print(f"{count:,} records of 256 dimensions with metadata, k={K}; medians of {rounds} rounds of {seconds:g} s.\n")
    reached = report("request | processes x calls", rows)
    return 0 if reached or chosen.quick else 1


if __name__ == "__main__":
    sys.exit(main())

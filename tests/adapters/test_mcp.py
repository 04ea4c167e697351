"""The MCP server: asked by the SDK's own client, in this process on every engine, and over stdio as programs do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nopokedb import NoPokeDB
from nopokedb.distribution import install_hint

pytest.importorskip("mcp", reason=f"mcp is missing: {install_hint('test-adapters')} (make test-adapters)")

from mcp import Client, StdioServerParameters

from nopokedb.adapters.mcp import MAX_K, SHOWN_CHARACTERS, Collections, build

READS = ["count", "fetch", "hybrid_search", "list_collections", "search"]
TEXTS = ["a red apple", "a green apple", "the deep blue sea", "quantum mechanics " + "x" * SHOWN_CHARACTERS]
METADATAS = [{"n": n, "kind": "fruit" if n < 2 else "other"} for n in range(len(TEXTS))]
IDS: list[int | str] = ["apple", 7, "7", 2**62]


def words(texts: Sequence[str]) -> Any:
    """One direction per word."""
    known = ("red", "green", "apple", "deep", "blue", "sea", "quantum", "rare")
    return np.array([[0.01 + text.split().count(word) for word in known] for text in texts], np.float32)


@asynccontextmanager
async def connected(path: Any, *, writable: bool = False) -> AsyncIterator[Client]:
    """A client of a server in this process."""
    collections = Collections(path, writable=writable)
    try:
        async with Client(build(collections, writable=writable)) as client:
            yield client
    finally:
        collections.close()


async def ask(client: Client, tool: str, **arguments: Any) -> Any:
    """What a tool answers."""
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    assert answer.structured_content is not None
    return answer.structured_content["result"]


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """The words with which a tool refuses."""
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    return str(answer.content[0].text)  # type: ignore[union-attr]


@pytest.mark.engines
async def test_what_tools_answer_is_what_the_library_answers(engine: dict[str, Any]) -> None:
    """On every engine; ints and strs stay what they are."""
    name = engine.get("collection")
    with NoPokeDB(dim=8, **engine) as db:
        db.add_many(words(TEXTS), METADATAS, ids=IDS, texts=TEXTS)
        want = [hit["id"] for hit in db.query(text="apple", k=4)]
        async with connected(engine["path"]) as client:
            found = {item["name"]: item for item in await ask(client, "list_collections")}
            assert len(found) == 1 or name in found
            about = found[name] if name in found else next(iter(found.values()))
            assert (about["count"], about["dim"], about["space"], about["embed"]) == (4, 8, "cosine", "")
            hits = await ask(client, "hybrid_search", question="apple", k=4, collection=name)
            assert [hit["id"] for hit in hits] == want
            assert hits[0]["metadata"]["kind"] == "fruit" and "apple" in hits[0]["text"]
            assert await ask(client, "hybrid_search", question="apple", where={"n": 5}, collection=name) == []
            records = await ask(client, "fetch", ids=[2**62, "7", 7, "none"], collection=name)
            assert [record["id"] for record in records] == [2**62, "7", 7]
            assert records[0] == {"id": 2**62, "text": TEXTS[3], "metadata": METADATAS[3]}
            assert await ask(client, "count", collection=name) == 4
            assert await ask(client, "count", where={"kind": "fruit"}, collection=name) == 2
            assert "no model" in await refused(client, "search", question="apple", collection=name)


async def test_texts_of_hits_are_short_and_fetched_ones_whole(tmp_path: Path) -> None:
    with NoPokeDB(dim=8, path=tmp_path, collection="c") as db:
        db.add_many(words(TEXTS), METADATAS, ids=IDS, texts=TEXTS)
    async with connected(tmp_path) as client:
        (hit,) = await ask(client, "hybrid_search", question="quantum")
        assert hit["text"] == TEXTS[3][:SHOWN_CHARACTERS]
        assert (await ask(client, "fetch", ids=[hit["id"]]))[0]["text"] == TEXTS[3]


async def test_refusals_are_told_in_the_words_of_the_library(tmp_path: Path) -> None:
    """The model reads what was wrong, and what to do."""
    for name in ("a", "b"):
        NoPokeDB(dim=8, path=tmp_path, collection=name).close()
    async with connected(tmp_path) as client:
        assert "['a', 'b']" in await refused(client, "count")
        assert "CollectionNotFoundError" in await refused(client, "count", collection="none")
        assert "$gtt" in await refused(client, "count", collection="a", where={"n": {"$gtt": 1}})
        assert "InvalidInputError" in await refused(client, "count", collection="../a")
        for k in (0, MAX_K + 1):
            assert f"1 to {MAX_K}" in await refused(client, "hybrid_search", question="x", k=k, collection="a")
        assert await ask(client, "count", collection="a") == 0


async def test_a_reader_sees_what_others_write(tmp_path: Path) -> None:
    """Each question is asked of the collection as it is then. A folder may be a collection itself."""
    with NoPokeDB(dim=8, path=tmp_path / "notes") as db:
        async with connected(tmp_path / "notes") as client:
            assert [item["name"] for item in await ask(client, "list_collections")] == ["notes"]
            assert await ask(client, "count") == 0
            db.add(words(["apple"])[0], text="apple")
            assert await ask(client, "count") == 1
            assert "Unknown tool" in await refused(client, "add", text="x")


async def test_over_stdio_a_model_searches_by_meaning_and_adds(tmp_path: Path) -> None:
    """As a program starts it; what was added is durable when the answer comes."""
    with NoPokeDB(path=tmp_path, collection="docs", dim=256, embed="wordllama") as db:
        db.add_many(None, METADATAS[:3], texts=TEXTS[:3], ids=IDS[:3])

    def server(*options: str) -> StdioServerParameters:
        return StdioServerParameters(command=sys.executable, args=["-m", "nopokedb", "mcp", str(tmp_path), *options])

    async with Client(server()) as client:
        tools = (await client.list_tools()).tools
        assert sorted(tool.name for tool in tools) == READS
        assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in tools)
        hits = await ask(client, "search", question="the ocean", k=2)
        assert hits[0]["id"] == "7" and hits[0]["score"] > hits[1]["score"]
        both = await ask(client, "hybrid_search", question="the ocean", words="apple", k=3)
        assert {hit["id"] for hit in both} == set(IDS[:3])
    async with Client(server("--write")) as client:
        assert sorted(tool.name for tool in (await client.list_tools()).tools) == ["add", *READS]
        assert await ask(client, "add", text="a yellow banana", metadata={"n": 9}, id="banana") == "banana"
        with NoPokeDB(path=tmp_path, collection="docs", read_only=True) as db:
            assert db.get_many(["banana"], include=("text",))[0].text == "a yellow banana"  # type: ignore[union-attr]
        assert "DuplicateIdError" in await refused(client, "add", text="again", id="banana")
        assert (await ask(client, "search", question="a yellow fruit", k=1))[0]["id"] == "banana"


def test_a_wrong_address_is_told_at_once() -> None:
    command = [sys.executable, "-m", "nopokedb", "mcp", "http://127.0.0.1:1", "--write"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 8 and "127.0.0.1:1" in done.stderr

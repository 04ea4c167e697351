"""REST: what each route promises, on a real server."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nopokedb import NoPokeDB

from .process import ServerProcess

DIM = 4
EYE = np.eye(DIM, dtype=np.float32)


@pytest.fixture
def docs(shared: ServerProcess, request: pytest.FixtureRequest) -> Iterator[str]:
    """A collection with the records 0 to 3, metadata {"n": id}."""
    name = f"/{request.node.name[:60].replace('[', '-').replace(']', '')}"
    shared.call("PUT", name, {"dim": DIM})
    records = [{"vector": EYE[n].tolist(), "metadata": {"n": n, "even": n % 2 == 0}} for n in range(DIM)]
    assert shared.call("POST", f"{name}/records", {"records": records}) == {"ids": [0, 1, 2, 3]}
    yield name
    shared.call("DELETE", name)


def packed(values: Any) -> dict[str, str]:
    return {"base64": base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()}


def test_a_query_answers_like_the_library(shared: ServerProcess, docs: str, tmp_path_factory: Any) -> None:
    """The same hits, scores and distances, however the vector is written."""
    question = np.array([0.9, 0.4, 0.1, -0.2], np.float32)
    with NoPokeDB(dim=DIM, path=tmp_path_factory.mktemp("same")) as db:
        db.add_many(EYE, [{"n": n, "even": n % 2 == 0} for n in range(DIM)])
        expected = [dict(hit) for hit in db.query(question, k=3)]
        filtered = [dict(hit) for hit in db.query(question, k=3, where={"even": True})]
        many = [[dict(hit) for hit in hits] for hits in db.query_many(EYE[:2], k=2)]
    for vector in (question.tolist(), packed(question)):
        assert shared.call("POST", f"{docs}/query", {"vector": vector, "k": 3}) == {"hits": expected}
    body = {"vector": packed(question), "k": 3, "where": {"even": True}}
    assert shared.call("POST", f"{docs}/query", body) == {"hits": filtered}
    for vectors in (EYE[:2].tolist(), packed(EYE[:2]), [packed(row) for row in EYE[:2]]):
        answer = shared.call("POST", f"{docs}/query", {"vectors": vectors, "k": 2})
        assert answer == {"results": [{"hits": hits} for hits in many]}


def test_ids_of_64_bits_and_digits_as_text(shared: ServerProcess, docs: str) -> None:
    """Ints keep all their digits, and 7 is not "7"."""
    for key in (2**63 - 1, -(2**63), "7", "a/b?c"):
        shared.call("POST", f"{docs}/records", {"records": [{"id": key, "vector": EYE[0].tolist()}]})
    assert shared.call("GET", f"{docs}/records/{2**63 - 1}")["id"] == 2**63 - 1
    assert shared.call("GET", f"{docs}/records/{-(2**63)}")["id"] == -(2**63)
    assert shared.call("GET", f"{docs}/records/7?id_type=str")["id"] == "7"
    assert shared.call("GET", f"{docs}/records/7", status=404)["error"]["type"] == "RecordNotFoundError"
    assert shared.call("GET", f"{docs}/records/a%2Fb%3Fc")["id"] == "a/b?c"
    assert shared.call("GET", f"{docs}/records/{2**63}", status=422)["error"]["type"] == "InvalidIdError"
    assert shared.call("DELETE", f"{docs}/records/7?id_type=str") == {"deleted": True}
    assert shared.call("DELETE", f"{docs}/records/7") == {"deleted": False}
    assert shared.call("POST", f"{docs}/records/get", {"ids": [2**63 - 1, "7"]})["records"][1] is None


def test_errors_say_what_was_expected(shared: ServerProcess, docs: str) -> None:
    """Each kind of error has its status, its type and a sentence."""
    cases: list[tuple[str, str, Any, int, str, str]] = [
        ("POST", "/query", {"vector": [1, 2]}, 422, "InvalidVectorError", "expected a vector of shape (4,)"),
        ("POST", "/query", {"vectr": [1, 2]}, 422, "InvalidInputError", "expected only the fields vector,"),
        ("POST", "/query", [1], 422, "InvalidInputError", "expected the body to be a JSON object, got an array"),
        ("POST", "/query", {}, 422, "InvalidInputError", "expected a vector, text= or like="),
        ("POST", "/facet", {}, 422, "InvalidInputError", "expected field in the body"),
        ("POST", "/count", {"where": {"n": {"$x": 1}}}, 422, "InvalidFilterError", "$x"),
        ("POST", "/count", {"at": "nope"}, 404, "SnapshotNotFoundError", "nope"),
        ("POST", "/query", {"vector": {"base64": "AAAA"}}, 422, "InvalidVectorError", "multiple of 4"),
        ("POST", "/records", {"records": [{"id": 0, "vector": [1, 0, 0, 0]}]}, 409, "DuplicateIdError", "0"),
        ("POST", "/records", {"records": [{"idd": 0}]}, 422, "InvalidInputError", "records[0]"),
        ("PUT", "", {"dim": 5}, 409, "SettingsMismatchError", "dim"),
    ]
    for method, path, body, status, kind, words in cases:
        answer = shared.call(method, f"{docs}{path}", body, status=status)
        assert answer["error"]["type"] == kind, answer
        assert words in answer["error"]["message"], answer

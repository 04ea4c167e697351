"""What clients write back into requests means what was asked, and messages hold what requests say."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from nopokedb.engine import Order
from nopokedb.filters import And, Range, Test, filter_key, holds
from nopokedb.question import order_of
from nopokedb.remote.wire import order_text, text_of, where_of
from nopokedb.rpc import generate
from nopokedb.rpc import nopokedb_pb2 as pb
from nopokedb.rpc.asked import fill, request_of
from nopokedb.rpc.methods import METHODS
from nopokedb.server import requests
from nopokedb.server.operations import OPERATIONS
from nopokedb.text_query import parse_text_query
from nopokedb.where import F, parse_filter

NAMES = st.sampled_from(["a", "a.b", "$id", "\\$x", "x\\.y", "-n", ""])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(), st.floats(allow_nan=False))
FINITE = SCALARS.filter(lambda value: not isinstance(value, float) or abs(value) < float("inf"))
CONDITIONS = st.one_of(
    FINITE,
    st.fixed_dictionaries({}, optional={"$gt": st.integers(-9, 9), "$lte": st.floats(-9, 9), "$ne": FINITE}).filter(
        len
    ),
    st.fixed_dictionaries({"$in": st.lists(FINITE, max_size=3)}),
    st.fixed_dictionaries({"$between": st.tuples(st.integers(-9, 9), st.integers(-9, 9))}),
    st.fixed_dictionaries({"$contains_any": st.lists(FINITE, min_size=1, max_size=3), "$exists": st.booleans()}),
    st.fixed_dictionaries({"$like": st.sampled_from(["a%", "_\\%"]), "$not": st.just({"$starts_with": "x"})}),
)
WHERES: Any = st.recursive(
    st.dictionaries(NAMES, CONDITIONS, max_size=3),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": inner, "a": CONDITIONS}),
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
    ),
    max_leaves=6,
)
RECORDS = [
    {"a": [-9, 9]},
    {"x.y": [-20, 20, "a"]},
    {},
    {"a": 1},
    {"a": "x"},
    {"a": {"b": [1.5, "a", None]}},
    {"$x": True, "x.y": 2**63},
    {"-n": -3, "": [7]},
]


@given(WHERES)
@settings(max_examples=150)
def test_filters_mean_the_same_when_they_are_written_back(where: dict[str, Any]) -> None:
    """Through JSON as well: 1, 1.0 and true stay what they are, and so do 64-bit ints."""
    node = parse_filter(where)
    assert node is not None
    again = parse_filter(orjson.loads(orjson.dumps(where_of(node))))
    assert again is not None
    for number, record in enumerate(RECORDS):
        assert holds(again, number, record) == holds(node, number, record)


def test_filters_at_the_limits_are_written_back() -> None:
    """As deep as a dict may be, and one test of many values."""
    where: dict[str, Any] = {"a": 1, "b": {"$gt": 2}}
    for _ in range(31):
        where = {"$not": where}
    node = parse_filter(where)
    assert node is not None
    again = parse_filter(where_of(node))
    assert again is not None and filter_key(again) == filter_key(node)
    many = F("a").is_in(range(100_000))
    assert len(parse_filter(where_of(parse_filter(many))).operand) == 100_000  # type: ignore[union-attr]
    assert where_of(Test(("a",), "range", Range(low=1, high=2))) == {"a": {"$between": [1, 2]}}
    assert where_of(And(())) == {} and where_of(None) is None


@given(st.text(alphabet='abü"„“+-*: \u2003'))
@settings(max_examples=150)
def test_texts_mean_the_same_when_they_are_written_back(text: str) -> None:
    query = parse_text_query(text)
    assert parse_text_query(text_of(query)) == query


@given(st.lists(st.text(alphabet='a.\\$-"'), min_size=1, max_size=3), st.booleans())
def test_orders_mean_the_same_when_they_are_written_back(steps: list[str], descending: bool) -> None:
    order = Order(tuple(steps), descending)
    assert order_of(order_text(order)) == order


def test_the_generated_messages_are_those_of_the_proto(tmp_path: Any) -> None:
    """Generated again, they are the same; whoever changes the .proto runs `python -m nopokedb.rpc.generate`."""
    assert generate.generate(tmp_path) == 0
    source = (tmp_path / "nopokedb" / "rpc" / "nopokedb_pb2.py").read_text()
    found = source[source.index("AddSerializedFile(") : source.index("\n\n_globals")]
    committed = Path(pb.__file__).read_text()
    assert found in committed
    types = (tmp_path / "nopokedb" / "rpc" / "nopokedb_pb2.pyi").read_text()
    assert "class QueryRequest" in types and "class QueryRequest" in Path(f"{pb.__file__}i").read_text()


def test_every_operation_is_a_method_with_all_its_fields() -> None:
    """Nothing that REST can be asked is missing in gRPC."""
    service = pb.DESCRIPTOR.services_by_name["NoPokeDB"]
    assert {method.name for method in METHODS} | {"Scan", "WriteStream", "Import"} == {
        method.name for method in service.methods
    }
    assert {method.operation for method in METHODS} >= OPERATIONS.keys() - {"scan"}
    for method in METHODS:
        assert service.methods_by_name[method.name].input_type.name == method.asked.__name__
        names = {item.name for item in fields(method.request)} - {"vector_format"}
        assert names <= {field.name for field in method.asked.DESCRIPTOR.fields}, method.name
    parts = ((pb.RecordInput, requests.RecordInput), (pb.Change, requests.Change), (pb.ScanRequest, requests.ScanAll))
    for message, kind in parts:
        assert {item.name for item in fields(kind)} - {"vector_format"} <= {f.name for f in message.DESCRIPTOR.fields}


def test_requests_come_out_of_messages_as_they_went_in() -> None:
    """With ids of 64 bits, strs that look like ints, empty lists of parts, and nulls."""
    asked = requests.Query(
        vector=np.float32([1, 2]), k=3, like=[2**63 - 1, -(2**63), "7", "ü"], include=(), where={"a": [1, 1.0, True]},
        text=["a", "b"], max_distance=-0.5, highlight=False, vector_format="base64",
    )  # fmt: skip
    found = request_of(requests.Query, pb.QueryRequest.FromString(fill(pb.QueryRequest(), asked).SerializeToString()))
    assert (found.k, found.like, found.include, found.text, found.max_distance) == (3, asked.like, (), ["a", "b"], -0.5)
    assert repr(found.where) == repr(asked.where) and np.array_equal(found.vector, asked.vector)  # type: ignore[arg-type]
    assert found.highlight is False and found.unlike is None and found.alpha == 0.5
    records = [requests.RecordInput("7", None, {"a": 2**64 - 1}, ""), requests.RecordInput(7, np.float32([1]))]
    write = requests.WriteRecords(records, "upsert", True)
    back = request_of(requests.WriteRecords, fill(pb.WriteRequest(), write))
    assert [(r.id, r.metadata, r.text) for r in back.records] == [("7", {"a": 2**64 - 1}, ""), (7, None, None)]
    assert (back.mode, back.merge, back.records[0].vector) == ("upsert", True, None)
    assert request_of(requests.GetRecords, pb.GetRequest()).ids == []

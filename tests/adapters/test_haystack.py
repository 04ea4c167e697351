"""`NoPokeDocumentStore` and its retrievers: Haystack's own base classes on every engine, and what they do not ask."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nopokedb import CollectionNotFoundError, InvalidInputError, InvalidMetadataError, NoPokeDB
from nopokedb.distribution import install_hint

pytest.importorskip("haystack", reason=f"haystack is missing: {install_hint('test-adapters')} (make test-adapters)")

import haystack
import haystack.testing.document_store as base
import haystack.testing.document_store_async as base_async
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.core.errors import DeserializationError
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.errors import FilterError
from haystack.utils import Secret
from haystack.utils.filters import document_matches_filter

from nopokedb.adapters.haystack import (
    NoPokeDocumentStore,
    NoPokeEmbeddingRetriever,
    NoPokeHybridRetriever,
    NoPokeTextRetriever,
)

pytestmark = pytest.mark.engines

Open = Callable[..., NoPokeDocumentStore]
WORDS = ("red", "green", "blue", "deep", "apple", "brick", "sea", "rare")
TEXTS = ["red apple", "green apple", "red brick", "blue sea", "deep sea"]
IDS = list("abcde")
OVERWRITE, SKIP, FAIL = DuplicatePolicy.OVERWRITE, DuplicatePolicy.SKIP, DuplicatePolicy.FAIL


def vector_of(text: str) -> list[float]:
    """One direction per word: what a cosine is can be counted by hand."""
    return [0.01 + text.split().count(word) for word in WORDS]


def rounded(documents: list[Document]) -> list[dict[str, Any]]:
    """Documents in the order of their ids, embeddings as float32, which is how they are kept."""
    found = [document.to_dict(flatten=False) for document in sorted(documents, key=lambda document: document.id)]
    for document in found:
        if document["embedding"] is not None:
            document["embedding"] = np.float32(document["embedding"]).tolist()
    return found


@pytest.fixture
def open_store(engine: dict[str, Any]) -> Iterator[Open]:
    """Opens stores on this test's collection; whatever is still open is closed at the end."""
    opened: list[NoPokeDocumentStore] = []

    def open_(**options: Any) -> NoPokeDocumentStore:
        opened.append(NoPokeDocumentStore(**engine, **options))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Open) -> NoPokeDocumentStore:
    """Five documents of two words each, and one without an embedding."""
    store = open_store(text_language="none")
    documents = [
        Document(id=id_, content=text, meta={"n": n, "tags": [text[0]]}, embedding=vector_of(text))
        for n, (id_, text) in enumerate(zip(IDS, TEXTS, strict=True))
    ]
    assert store.write_documents([*documents, Document(id="f", content="rare words", meta={"n": 5})]) == 6
    return store


def ids_of(documents: list[Document]) -> list[str]:
    return [document.id for document in documents]


# --- Haystack's own tests --------------------------------------------------------------------------------------


class Own:
    """The store under test, and the one thing that the base classes leave to it: how documents are compared. They have
    no order of their own here, and embeddings are float32."""

    @pytest.fixture
    def document_store(self, open_store: Open) -> NoPokeDocumentStore:
        return open_store(dim=768)

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        assert rounded(received) == rounded(expected)


class TestHaystacksSuite(
    Own,
    base.DocumentStoreBaseExtendedTests,
    base.CountDocumentsByFilterTest,
    base.CountUniqueMetadataByFilterTest,
    base.GetMetadataFieldsInfoTest,
    base.GetMetadataFieldMinMaxTest,
    base.GetMetadataFieldUniqueValuesTest,
):
    """What Haystack asks of document stores, all of it. (It skips two tests of recreating an index by itself, for
    stores that have no argument for that.)"""

    def test_write_documents(self, document_store: Any) -> None:
        """The suite leaves the default to the store: an id that exists is refused."""
        documents = [Document(id="1", content="x"), Document(id="2", content="y")]
        assert document_store.write_documents(documents) == 2
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([Document(id="3"), documents[0]])
        self.assert_documents_are_equal(document_store.filter_documents(), documents)


class TestHaystacksAsyncSuite(
    Own,
    base_async.CountDocumentsAsyncTest,
    base_async.WriteDocumentsAsyncTest,
    base_async.DeleteDocumentsAsyncTest,
    base_async.FilterDocumentsAsyncTest,
    base_async.DeleteAllAsyncTest,
    base_async.DeleteByFilterAsyncTest,
    base_async.UpdateByFilterAsyncTest,
    base_async.CountDocumentsByFilterAsyncTest,
    base_async.CountUniqueMetadataByFilterAsyncTest,
    base_async.GetMetadataFieldsInfoAsyncTest,
    base_async.GetMetadataFieldMinMaxAsyncTest,
    base_async.GetMetadataFieldUniqueValuesAsyncTest,
):
    """The same of their awaitable twins."""

    async def test_write_documents_async(self, document_store: Any) -> None:
        """As in the other suite."""
        documents = [Document(id="1", content="x")]
        assert await document_store.write_documents_async(documents) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async(documents)


@pytest.mark.engines("embedded")
def test_no_class_of_the_suites_is_left_out() -> None:
    """A newer Haystack may ask for more."""
    for module, suite in ((base, TestHaystacksSuite), (base_async, TestHaystacksAsyncSuite)):
        for name, asked in vars(module).items():
            if isinstance(asked, type) and name.endswith("Test") and asked.__module__ == module.__name__:
                assert issubclass(suite, asked), name


# --- documents -------------------------------------------------------------------------------------------------

DOCUMENTS = [
    Document(id="plain", content="red", meta={"n": 1, "nested": {"a": [1, {"b": None}]}, "none": None, "ü": "ü"}),
    Document(id="bare"),
    Document(id="empty", content=""),
    Document(id="vector", content="sea", embedding=[0.5, 0.25, 0.0]),
    Document(id="data", blob=ByteStream(bytes(range(256)), {"page": 3}, "image/png"), embedding=[1.0, 0.0, 0.0]),
    Document(id="sparse", content="x", sparse_embedding=SparseEmbedding([3, 7], [0.5, 1.25])),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.id)
def test_a_document_comes_back_as_it_was(open_store: Open, document: Document) -> None:
    """Content, meta, data, embeddings; none of it is left when another takes its place."""
    store = open_store(dim=3)
    other = Document(id=document.id, content="y", meta={"y": 1}, embedding=[0.0, 1.0, 0.0], blob=ByteStream(b"y"))
    store.write_documents([document])
    assert store.filter_documents() == [document]
    store.write_documents([other], OVERWRITE)
    assert store.filter_documents() == [other]
    store.write_documents([document], OVERWRITE)
    assert store.filter_documents() == [document]


def test_records_of_other_programs_are_documents(store: NoPokeDocumentStore) -> None:
    """Whole collections that Haystack never saw; ids that are ints are found by their digits."""
    store.database.add(vector_of("rare"), {"by": "another"}, id=7)
    (found,) = NoPokeEmbeddingRetriever(store, top_k=1).run(vector_of("rare"))["documents"]
    assert (found.id, found.content, found.meta) == ("7", None, {"by": "another"})
    assert ids_of(store.filter_documents({"field": "id", "operator": "in", "value": ["7", "a"]})) == ["7", "a"]
    with pytest.raises(DuplicateDocumentError):
        store.write_documents([Document(id="7")])
    assert store.write_documents([Document(id="7")], SKIP) == 0
    store.write_documents([Document(id="7", content="new")], OVERWRITE)
    assert store.database[7].text == "new" and "7" not in store.database
    store.delete_documents(["7", "7", "absent"])
    assert 7 not in store.database


def test_policies_hold_within_a_call(open_store: Open) -> None:
    """An id twice in one call is a duplicate as well; a refused call writes nothing."""
    store = open_store(dim=3)
    first, second, third = (Document(id=id_, content=text) for id_, text in (("1", "x"), ("1", "y"), ("2", "z")))
    for policy in (FAIL, DuplicatePolicy.NONE):
        with pytest.raises(DuplicateDocumentError):
            store.write_documents([third, first, second], policy)
        assert store.count_documents() == 0
    assert store.write_documents([first, second, third], SKIP) == 2
    assert [document.content for document in store.filter_documents()] == ["x", "z"]
    assert store.write_documents([first, second], OVERWRITE) == 2
    assert [document.content for document in store.filter_documents()] == ["y", "z"]
    assert store.write_documents([]) == 0


def test_wrong_documents_change_nothing(store: NoPokeDocumentStore) -> None:
    before = store.filter_documents()
    for wrong, error in (
        ([Document(id="x", meta={"_haystack": 1})], InvalidInputError),
        ([Document(id="x"), Document(id="y", meta={"bad": float("nan")})], InvalidMetadataError),
        ([Document(id="x"), Document(id="y", embedding=[1.0])], InvalidInputError),
        ([Document(id="x" * 513)], InvalidInputError),
        (("x",), ValueError),
    ):
        with pytest.raises(error):
            store.write_documents(wrong, OVERWRITE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="DuplicatePolicy"):
        store.write_documents([Document(id="x")], "overwrite")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="list"):
        store.delete_documents("abc")  # type: ignore[arg-type]
    for empty in ({}, None):
        with pytest.raises(FilterError, match="delete_all_documents"):
            store.delete_by_filter(empty)  # type: ignore[arg-type]
        with pytest.raises(FilterError):
            store.update_by_filter(empty, {"x": 1})  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="_haystack"):
        store.update_by_filter({"field": "id", "operator": "==", "value": "f"}, {"_haystack": {}})
    assert store.filter_documents() == before


# --- filters ---------------------------------------------------------------------------------------------------


def test_filters_pass_what_haystack_says(open_store: Open, rng: np.random.Generator) -> None:
    """Random meta and filters; Haystack's own function is the model."""
    store = open_store(dim=3)

    def one_of(*choices: Any) -> Any:
        return choices[rng.integers(0, len(choices))]

    dates = ("1999-12-31T23:59:59", "2000-01-01T00:00:00", "2024-02-29T12:00:00")
    documents = []
    for at in range(60):
        meta: dict[str, Any] = {}
        if rng.random() < 0.8:
            meta["n"] = one_of(-2, 0, 1, 1.5, 7, None)
        if rng.random() < 0.8:
            meta["date"] = one_of(*dates)
        if rng.random() < 0.8:
            meta["who"] = one_of({"name": one_of("Ada", "Bob", "")}, {}, None)
        documents.append(Document(id=f"d{at:02}", meta=meta))
    store.write_documents(documents)

    def random_filter(depth: int) -> dict[str, Any]:
        if depth and rng.random() < 0.5:
            parts = [random_filter(depth - 1) for _ in range(rng.integers(1, 4))]
            return {"operator": one_of("AND", "OR", "NOT"), "conditions": parts}
        operator = one_of("==", "!=", ">", ">=", "<", "<=", "in", "not in")
        field, values = one_of(("meta.n", (-2, 0, 1, 3.5, None)), ("meta.date", (*dates, None)), ("meta.who.name", ()))
        if not values:
            operator, values = one_of("==", "!=", "in", "not in"), ("Ada", "", None)
        value = [one_of(*values), one_of(*values)] if "in" in operator else one_of(*values)
        return {"field": field, "operator": operator, "value": value}

    for _ in range(80):
        filters = random_filter(2)
        want = [document.id for document in documents if document_matches_filter(filters, document)]
        assert ids_of(store.filter_documents(filters)) == want, filters
        assert store.count_documents_by_filter(filters) == len(want)


@pytest.mark.parametrize(
    ("field", "operator", "value", "expected"),
    [
        ("id", "==", "b", "b"),
        ("id", "!=", "b", "acdef"),
        ("id", "in", ["a", "c", "x"], "ac"),
        ("id", "not in", ["a", "c", "x"], "bdef"),
        ("n", ">=", 4, "ef"),
        ("meta.tags", "==", "r", "ac"),
        ("meta.tags", "in", ["g", "d"], "be"),
    ],
)
def test_other_fields(store: NoPokeDocumentStore, field: str, operator: str, value: Any, expected: str) -> None:
    """Ids; a name without `meta.`; elements of lists."""
    filters = {"field": field, "operator": operator, "value": value}
    assert ids_of(store.filter_documents(filters)) == list(expected)
    assert store.delete_by_filter(filters) == len(expected)
    assert store.count_documents() == 6 - len(expected)


def test_wrong_filters_are_refused(store: NoPokeDocumentStore) -> None:
    """In reading, retrieving, changing and deleting; none is passed over."""
    test = {"field": "meta.n", "operator": "==", "value": 1}
    deep: dict[str, Any] = test
    for _ in range(2_000):
        deep = {"operator": "NOT", "conditions": [deep]}
    retriever = NoPokeEmbeddingRetriever(store)
    for wrong in (
        test | {"operator": "$eq"},
        test | {"operator": "=>"},
        test | {"value": {"a": 1}},
        test | {"value": [1]},
        test | {"field": 7},
        test | {"field": "content"},
        test | {"field": "embedding"},
        test | {"field": "id", "operator": ">", "value": "a"},
        test | {"field": "id", "value": None},
        test | {"field": "id", "operator": "in", "value": "abc"},
        test | {"operator": ">", "value": True},
        {"operator": "XOR", "conditions": [test]},
        {"operator": "AND", "conditions": []},
        {"operator": "AND", "conditions": test},
        {"operator": "AND", "conditions": ["x"]},
        {"meta.n": 1},
        ["x"],
        deep,
    ):
        for action in (
            store.filter_documents,
            store.count_documents_by_filter,
            store.delete_by_filter,
            lambda wrong: store.update_by_filter(wrong, {"x": 1}),
            lambda wrong: retriever.run(vector_of("red"), wrong),
        ):
            with pytest.raises(FilterError):
                action(wrong)  # type: ignore[arg-type]
    assert store.count_documents() == 6


def test_changing_meta(store: NoPokeDocumentStore) -> None:
    """A merge patch; embedding, content and what else a document has stay."""
    before = store.filter_documents()
    test = {"field": "meta.n", "operator": ">=", "value": 4}
    assert store.update_by_filter(test, {"tags": None, "new": {"x": 1}}) == 2
    assert store.update_by_filter(test, {"new": {"y": 2}}) == 2
    after = store.filter_documents()
    assert after[:4] == before[:4]
    assert [document.meta for document in after[4:]] == [{"n": n, "new": {"x": 1, "y": 2}} for n in (4, 5)]
    assert [document.embedding for document in after] == [document.embedding for document in before]


def test_looking_at_meta(store: NoPokeDocumentStore) -> None:
    """Fields within fields, lists, values of several kinds, and without the store's own key."""
    metas: list[dict[str, Any]] = [
        {"x": 1, "y": True, "z": {"a": "m"}},
        {"x": "1", "y": 3, "z": {"a": "k"}},
        {"x": None},
    ]
    store.write_documents([Document(id=f"m{at}", meta=meta) for at, meta in enumerate(metas)])
    info = store.get_metadata_fields_info()
    assert set(info) == {"n", "tags", "x", "y", "z"} and info["n"] == {"type": "int"}
    assert store.get_metadata_field_min_max("n") == {"min": 0, "max": 5}
    assert store.get_metadata_field_min_max("x") == {"min": None, "max": None}
    assert store.get_metadata_field_min_max("y") == {"min": 3, "max": 3}
    assert store.get_metadata_field_min_max("meta.z.a") == {"min": "k", "max": "m"}
    assert store.get_metadata_field_unique_values("x") == ([1, "1"], 2)
    assert store.get_metadata_field_unique_values("tags", size=2) == ([["b"], ["d"]], 4)
    test = {"field": "n", "operator": "<", "value": 3}
    assert store.count_unique_metadata_by_filter(test, ["meta.n", "tags", "z.a"]) == {"n": 3, "tags": 2, "z.a": 0}


# --- retrievers ------------------------------------------------------------------------------------------------


def test_retrieving_by_embedding(store: NoPokeDocumentStore) -> None:
    """Cosines, best first; what has no embedding is never found, however many are asked for."""
    found = NoPokeEmbeddingRetriever(store).run(vector_of("red apple"))["documents"]
    question = np.array(vector_of("red apple"))
    assert found[0].id == "a" and sorted(ids_of(found)) == IDS
    for document in found:
        vector = np.array(vector_of(document.content or ""))
        cosine = vector @ question / np.linalg.norm(vector) / np.linalg.norm(question)
        assert document.score == pytest.approx(cosine, abs=1e-6) and document.embedding is None
    retriever = NoPokeEmbeddingRetriever(
        store, top_k=2, return_embedding=True, options={"max_distance": 0.9, "target_recall": 1.0}
    )
    (first, _) = retriever.run(vector_of("red apple"))["documents"]
    assert first.embedding == pytest.approx(vector_of("red apple"))
    assert len(retriever.run(vector_of("red apple"), top_k=1)["documents"]) == 1
    assert retriever.run([1.0] + [0.0] * 7, {"field": "id", "operator": "==", "value": "f"})["documents"] == []


def test_retrieving_by_words(store: NoPokeDocumentStore) -> None:
    """BM25: only documents with a word of the query, with or without an embedding."""
    found = NoPokeTextRetriever(store).run("green apple")["documents"]
    want = store.database.query(text="green apple", k=10)
    assert ids_of(found) == ["b", "a"] and [document.score for document in found] == [hit.score for hit in want]
    assert ids_of(NoPokeTextRetriever(store).run("rare")["documents"]) == ["f"]
    assert NoPokeTextRetriever(store).run("")["documents"] == []


def test_retrieving_by_both(store: NoPokeDocumentStore) -> None:
    """Fused by ranks, or by scores."""
    vector = vector_of("deep sea")
    found = NoPokeHybridRetriever(store, top_k=3).run("red brick", vector)["documents"]
    want = store.database.query(vector, 3, text="red brick", where={"n": {"$lt": 5}})
    assert ids_of(found) == [hit.id for hit in want] and [document.score for document in found] == [
        hit.score for hit in want
    ]
    for alpha, best in ((0.0, "c"), (1.0, "e")):
        retriever = NoPokeHybridRetriever(store, top_k=1, options={"fusion": "weighted", "alpha": alpha})
        assert ids_of(retriever.run("red brick", vector)["documents"]) == [best]


@pytest.mark.parametrize(("policy", "expected"), [(FilterPolicy.REPLACE, "cdef"), (FilterPolicy.MERGE, "cd")])
def test_filters_of_a_retriever(store: NoPokeDocumentStore, policy: FilterPolicy, expected: str) -> None:
    """Its own hold for every run; those of a run replace them, or join them."""
    first = {"operator": "AND", "conditions": [{"field": "meta.n", "operator": "<", "value": 4}]}
    second = {"operator": "AND", "conditions": [{"field": "meta.n", "operator": ">=", "value": 2}]}
    store.write_documents([Document(id="f", content="red", meta={"n": 5}, embedding=vector_of("red"))], OVERWRITE)
    options: dict[str, Any] = {"filters": first, "filter_policy": policy}
    by_vector = NoPokeEmbeddingRetriever(store, **options)
    both = NoPokeHybridRetriever(store, **options)
    assert sorted(ids_of(by_vector.run(vector_of("red"))["documents"])) == list("abcd")
    assert sorted(ids_of(by_vector.run(vector_of("red"), second)["documents"])) == list(expected)
    assert sorted(ids_of(both.run("red", vector_of("red"), second)["documents"])) == list(expected)
    by_words = NoPokeTextRetriever(store, **options)
    assert set(ids_of(by_words.run("red sea", second)["documents"])) == set(expected) & set("acdef")


async def test_awaiting_a_retriever(store: NoPokeDocumentStore) -> None:
    filters = {"field": "meta.n", "operator": "<", "value": 3}
    vector = vector_of("red sea")
    for retriever, question in (
        (NoPokeEmbeddingRetriever(store), {"query_embedding": vector}),
        (NoPokeTextRetriever(store), {"query": "red sea"}),
        (NoPokeHybridRetriever(store), {"query": "red sea", "query_embedding": vector}),
    ):
        want = retriever.run(**question, filters=filters, top_k=2)
        assert await retriever.run_async(**question, filters=filters, top_k=2) == want and want["documents"]


def test_wrong_retrievers_are_refused(store: NoPokeDocumentStore) -> None:
    for options, named in (({"top_k": 0}, "top_k"), ({"options": {"where": {}}}, "where")):
        with pytest.raises(InvalidInputError, match=named):
            NoPokeEmbeddingRetriever(store, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="NoPokeDocumentStore"):
        NoPokeTextRetriever("store")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="vector"):
        NoPokeTextRetriever(store, options={"ef": 10}).run("red")
    with pytest.raises(InvalidInputError, match="8"):
        NoPokeEmbeddingRetriever(store).run([1.0])


# --- pipelines -------------------------------------------------------------------------------------------------


def test_a_saved_pipeline_answers_as_before(store: NoPokeDocumentStore, engine: dict[str, Any]) -> None:
    """With all three retrievers and a writer, by way of YAML."""
    pipeline = Pipeline()
    filters = {"field": "meta.n", "operator": "<", "value": 4}
    options: dict[str, Any] = {"top_k": 3, "filters": filters, "filter_policy": FilterPolicy.MERGE}
    pipeline.add_component("vector", NoPokeEmbeddingRetriever(store, **options, return_embedding=True))
    pipeline.add_component("words", NoPokeTextRetriever(store, **options))
    pipeline.add_component(
        "both", NoPokeHybridRetriever(store, **options, options={"fusion": "weighted", "alpha": 0.3})
    )
    question: dict[str, Any] = {
        "vector": {"query_embedding": vector_of("red sea")},
        "words": {"query": "red sea", "filters": {"field": "id", "operator": "!=", "value": "a"}},
        "both": {"query": "red sea", "query_embedding": vector_of("red sea"), "top_k": 1},
    }
    before = pipeline.run(question)
    saved = pipeline.dumps()
    loaded = load(saved)
    after = loaded.run(question)
    assert after == before and all(part["documents"] for part in after.values())
    assert loaded.to_dict() == pipeline.to_dict()
    for name in ("vector", "words", "both"):
        loaded.get_component(name).close()
    store.close()
    with NoPokeDB(**engine) as db:  # a folder is free
        assert db.count() == 6


def test_stores_with_the_same_arguments_share_a_collection(open_store: Open, engine: dict[str, Any]) -> None:
    """A folder has one writer, and components of pipelines have a store each. It closes with the last of them and opens
    again; those that are forgotten leave it open, and are no obstacle."""
    first, second = open_store(dim=3), open_store(dim=3)
    first.write_documents([Document(id="a")])
    assert second.database is first.database
    first.close()
    first.close()
    assert second.count_documents() == 1
    third = open_store(dim=3)
    assert third.database is second.database
    second.close()
    assert third.count_documents() == 1
    third.close()
    with NoPokeDB(**engine) as db:
        assert db.count() == 1
    assert third.count_documents() == first.count_documents() == 1
    first.close()
    third.close()
    pipeline = Pipeline()
    pipeline.add_component("words", NoPokeTextRetriever(open_store(dim=3)))
    saved = pipeline.dumps()
    for _ in range(2):
        loaded = load(saved)
        assert loaded.run({"words": {"query": "red"}}) == {"words": {"documents": []}}
        del loaded


def load(saved: str) -> Pipeline:
    """A pipeline from YAML, whose classes are not Haystack's own."""
    try:
        return Pipeline.loads(saved, allowed_modules=["nopokedb"])
    except TypeError:  # Haystack 2 asks nobody
        return Pipeline.loads(saved)


async def test_pipelines_of_writing_and_awaiting(open_store: Open) -> None:
    """Components of Haystack write, awaitable pipelines ask."""
    store = open_store()
    writing = Pipeline()
    writing.add_component("writer", DocumentWriter(store, OVERWRITE))
    documents = [Document(id=id_, content=id_, embedding=vector_of(id_)) for id_ in WORDS]
    assert writing.run({"writer": {"documents": documents}}) == {"writer": {"documents_written": len(WORDS)}}
    asking = getattr(haystack, "AsyncPipeline", Pipeline)()  # Haystack 2 has a class of its own for it
    asking.add_component("retriever", NoPokeEmbeddingRetriever(store, top_k=1))
    writing.get_component("writer").document_store.close()  # type: ignore[attr-defined]  # as `Pipeline.close` may
    found = await asking.run_async({"retriever": {"query_embedding": vector_of("sea")}})
    assert ids_of(found["retriever"]["documents"]) == ["sea"]
    await asking.get_component("retriever").close_async()


@pytest.mark.engines("embedded")
def test_secrets_are_named_and_never_written(
    store: NoPokeDocumentStore, engine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked up when the collection opens, not before: a pipeline is loaded where they are unknown."""
    store.close()
    by_name = NoPokeDocumentStore(
        Secret.from_env_var("PLACE_OF_THE_TEST"), api_key=Secret.from_env_var("KEY_OF_THE_TEST", strict=False)
    )
    saved = by_name.to_dict()
    loaded = NoPokeDocumentStore.from_dict(saved)
    assert loaded.to_dict() == saved and "PLACE_OF_THE_TEST" in str(saved)
    with pytest.raises(ValueError, match="PLACE_OF_THE_TEST"):
        loaded.count_documents()
    monkeypatch.setenv("PLACE_OF_THE_TEST", str(engine["path"]))
    with loaded:
        assert loaded.count_documents() == 6
    with pytest.raises(ValueError, match="token"):
        NoPokeDocumentStore("x", api_key=Secret.from_token("secret")).to_dict()
    with pytest.raises(InvalidInputError, match="Secret"):
        NoPokeDocumentStore("x", api_key="secret")  # type: ignore[arg-type]
    with pytest.raises((DeserializationError, TypeError)):
        NoPokeDocumentStore.from_dict(saved | {"type": "somewhere.else.Store"})


# --- opening ---------------------------------------------------------------------------------------------------


def test_the_first_documents_create_the_collection(open_store: Open) -> None:
    """Before them there is nothing to find; without an embedding among them the dimension has to be said."""
    store = open_store()
    assert store.count_documents() == 0 and store.filter_documents() == []
    assert store.get_metadata_fields_info() == {} and store.count_documents_by_filter({}) == 0
    store.delete_documents(["x"])
    store.delete_all_documents()
    test = {"field": "meta.n", "operator": "==", "value": 1}
    assert store.delete_by_filter(test) == store.update_by_filter(test, {"x": 1}) == 0
    assert NoPokeTextRetriever(store).run("red")["documents"] == []
    with pytest.raises(InvalidInputError, match="dim="):
        store.write_documents([Document(id="a")])
    with pytest.raises(CollectionNotFoundError):
        _ = store.database
    store.write_documents([Document(id="a"), Document(id="b", embedding=[1.0, 2.0])])
    assert store.database.dim == 2
    store.close()
    store.close()
    assert open_store().count_documents() == 2


def test_an_open_collection_is_shared_and_left_open(open_db: Callable[..., NoPokeDB], tmp_path: Path) -> None:
    """There is one truth, and one writer; what is not a path cannot be saved."""
    db = open_db(dim=2)
    with NoPokeDocumentStore(database=db) as store:
        store.write_documents([Document(id="a", content="red")])
        assert store.database is db and db["a"].text == "red"
        with pytest.raises(InvalidInputError, match="path"):
            store.to_dict()
    assert db.count() == 1
    key = Secret.from_token("x")
    for both in ({"path": tmp_path}, {"collection": "x"}, {"dim": 3}, {"space": "l2"}, {"api_key": key}):
        with pytest.raises(InvalidInputError, match="both"):
            NoPokeDocumentStore(database=db, **both)  # type: ignore[arg-type]


# --- the extra -------------------------------------------------------------------------------------------------


@pytest.mark.engines("embedded")
def test_a_missing_extra_says_how_to_install_it(tmp_path: Path) -> None:
    """The rest of the package needs no framework, and the adapter names its own extra."""
    code = (
        "import sys; sys.modules['haystack'] = None; import nopokedb\n"
        "try:\n    import nopokedb.adapters.haystack\nexcept ImportError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.search(r"haystack-ai: " + re.escape(install_hint("haystack")), run.stdout)

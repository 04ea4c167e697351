"""`NoPokeVectorStore` of LlamaIndex: what an index, a retriever and a pipeline ask of it, on every engine; filters
against LlamaIndex's own function."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nopokedb import (
    CollectionNotFoundError,
    DuplicateIdError,
    InvalidFilterError,
    InvalidInputError,
    InvalidMetadataError,
    NoPokeDB,
)
from nopokedb.distribution import install_hint

pytest.importorskip(
    "llama_index.core", reason=f"llama_index is missing: {install_hint('test-adapters')} (make test-adapters)"
)

from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from nopokedb.adapters.llama_index import NoPokeVectorStore

pytestmark = pytest.mark.engines

Open = Callable[..., NoPokeVectorStore]
WORDS = ("red", "green", "blue", "deep", "apple", "brick", "sea", "rare")
TEXTS = ["red apple", "green apple", "red brick", "blue sea", "deep sea"]
IDS = list("abcde")


def vector_of(text: str) -> list[float]:
    """One direction per word: what a cosine is can be counted by hand."""
    return [0.01 + text.split().count(word) for word in WORDS]


class Words(BaseEmbedding):
    """Those vectors, as an embedding."""

    def _get_query_embedding(self, query: str) -> list[float]:
        return vector_of(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return vector_of(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return vector_of(text)


def text_node(id_: str, text: str, source: str | None = None, **metadata: Any) -> TextNode:
    node = TextNode(id_=id_, text=text, metadata=metadata, embedding=vector_of(text))
    if source is not None:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=source)
    return node


@pytest.fixture(autouse=True)
def event_loop() -> Iterator[None]:
    """LlamaIndex runs coroutines in the event loop of its thread, and would leave one that it makes open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def open_store(engine: dict[str, Any]) -> Iterator[Open]:
    """Opens stores on this test's collection; whatever is still open is closed at the end."""
    opened: list[NoPokeVectorStore] = []

    def open_(**options: Any) -> NoPokeVectorStore:
        opened.append(NoPokeVectorStore(**engine, **options))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Open) -> NoPokeVectorStore:
    """Five nodes of two words each, of the documents "fruit" and "rest"."""
    store = open_store(text_language="none")
    nodes = [
        text_node(id_, text, "fruit" if n < 2 else "rest", n=n, tags=["x", text[0]] if n < 4 else [])
        for n, (id_, text) in enumerate(zip(IDS, TEXTS, strict=True))
    ]
    assert store.add(nodes) == IDS
    return store


def ask(store: NoPokeVectorStore, text: str = "red apple", k: int = 5, **options: Any) -> VectorStoreQueryResult:
    where = options.pop("kwargs", {})
    return store.query(
        VectorStoreQuery(query_embedding=vector_of(text), query_str=text, similarity_top_k=k, **options), **where
    )


def only(*filters: Any, condition: FilterCondition | None = FilterCondition.AND) -> MetadataFilters:
    return MetadataFilters(filters=list(filters), condition=condition)


def test(key: str, operator: FilterOperator, value: Any = None) -> MetadataFilter:
    return MetadataFilter(key=key, operator=operator, value=value)


test.__test__ = False  # type: ignore[attr-defined]


# --- nodes -----------------------------------------------------------------------------------------------------

NODES: list[BaseNode] = [
    TextNode(
        id_="text",
        text="red apple",
        metadata={"n": 1, "nested": {"a": [1, {"b": None}]}, "none": None, "empty": [], "name": "ü"},
        start_char_idx=3,
        end_char_idx=12,
        excluded_llm_metadata_keys=["n"],
        metadata_template="{key}={value}",
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(node_id="document", metadata={"file": "x.txt"}, hash="h"),
            NodeRelationship.NEXT: RelatedNodeInfo(node_id="next"),
            NodeRelationship.CHILD: [RelatedNodeInfo(node_id="child1"), RelatedNodeInfo(node_id="child2")],
        },
    ),
    TextNode(id_="own", text="sea", metadata={"doc_id": "mine", "ref_doc_id": 7, "_node_type": "x", "document_id": []}),
    TextNode(id_="bare"),
    IndexNode(id_="index", text="an index", index_id="elsewhere", metadata={"n": 2}),
    ImageNode(id_="image", text="a picture", image_url="http://localhost/x.png", metadata={"n": 3}),
    Node(id_="node", text_resource=MediaResource(text="blue", mimetype="text/markdown"), metadata={"n": 4}),
    Node(id_="silent", image_resource=MediaResource(path="x.png")),
    Document(id_="whole", text="deep sea", metadata={"n": 5}),
]


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.node_id)
def test_a_node_comes_back_as_it_was(open_store: Open, node: BaseNode) -> None:
    """Class, text, metadata, relationships, embedding: by its id and by a query; the record is readable without
    LlamaIndex."""
    store = open_store()
    given = node.model_copy(deep=True)
    given.embedding = [0.5, 0.25, 0.0, 2.0]
    assert store.add([given]) == [node.node_id]
    (got,) = store.get_nodes([node.node_id])
    assert type(got) is type(node) and got == given
    assert got.ref_doc_id == node.ref_doc_id and got.relationships == node.relationships
    result = store.query(VectorStoreQuery(query_embedding=[1.0, 0.0, 0.0, 1.0]))
    assert result.ids == [node.node_id] and result.nodes == [node]
    record = store.client[node.node_id]
    assert record.text == node.get_content() and (record.metadata or {}).get("n") == node.metadata.get("n")


def test_what_another_program_changes_shows_in_the_node(store: NoPokeVectorStore) -> None:
    """Metadata are stored once."""
    store.client.update_many(["a"], {"n": 70, "new": "x", "tags": None})
    (node,) = store.get_nodes(["a"])
    assert node.metadata == {"n": 70, "new": "x"} and node.ref_doc_id == "fruit"
    assert (store.client["a"].metadata or {})["_node_content"].count("tags") == 0


def test_records_of_other_programs_are_nodes(store: NoPokeVectorStore) -> None:
    """Whole collections that LlamaIndex never saw; ids that are ints are found by their digits."""
    store.client.add(vector_of("rare rare"), {"by": "another", "doc_id": "x"}, id=7, text="seven")
    store.client.add(vector_of("rare rare blue"), id="none")
    found = ask(store, "rare", k=2)
    assert found.ids == ["7", "none"]
    assert found.nodes == [
        TextNode(id_="7", text="seven", metadata={"by": "another", "doc_id": "x"}),
        TextNode(id_="none"),
    ]
    assert [node.node_id for node in store.get_nodes(["none", "7", "absent"])] == ["none", "7"]
    assert ask(store, "rare", node_ids=["7"]).ids == ["7"]
    store.add([text_node("7", "replaced")])
    assert store.client[7].text == "replaced" and "7" not in store.client
    store.delete_nodes(["7"])
    assert 7 not in store.client


def test_a_node_with_an_id_that_exists_is_replaced_whole(store: NoPokeVectorStore) -> None:
    store.add([text_node("a", "rare")])
    (node,) = store.get_nodes(["a"])
    assert node == text_node("a", "rare") or node.embedding == pytest.approx(vector_of("rare"))
    assert node.metadata == {} and node.get_content() == "rare" and node.ref_doc_id is None
    assert store.client.count() == len(TEXTS)


def test_wrong_nodes_change_nothing(store: NoPokeVectorStore) -> None:
    for wrong, error in (
        ([text_node("x", "x"), TextNode(id_="y", text="y")], ValueError),
        ([text_node("x", "x"), text_node("x", "y")], DuplicateIdError),
        ([text_node("x", "x"), TextNode(id_="", embedding=vector_of("x"))], InvalidInputError),
        ([text_node("x", "x"), text_node("y", "y", bad=float("nan"))], InvalidMetadataError),
        ([text_node("x", "x"), TextNode(id_="y", embedding=[1.0])], InvalidInputError),
    ):
        with pytest.raises(error):
            store.add(wrong)
    with pytest.raises(InvalidInputError, match="nonsense"):
        store.add([], nonsense=1)
    assert store.add([]) == []
    assert [record.id for record in store.client.scan()] == IDS


# --- queries ---------------------------------------------------------------------------------------------------


def test_similarities_are_cosines(store: NoPokeVectorStore) -> None:
    """Best first, compared with NumPy; as many as there are, at most k."""
    found = ask(store)
    question = np.array(vector_of("red apple"))
    assert found.ids is not None and found.similarities is not None and found.ids[0] == "a"
    for id_, similarity in zip(found.ids, found.similarities, strict=True):
        vector = np.array(vector_of(TEXTS[IDS.index(id_)]))
        expected = vector @ question / np.linalg.norm(vector) / np.linalg.norm(question)
        assert similarity == pytest.approx(expected, abs=1e-6)
    assert found.similarities == sorted(found.similarities, reverse=True)
    assert ask(store, k=2).ids == found.ids[:2]
    assert VectorStoreQuery(query_embedding=vector_of("red")).similarity_top_k == 1


@pytest.mark.parametrize(("space", "expected"), [("l2", 1 / (1 + 2**0.5)), ("ip", 1.01**2 + 2 * 0.0101 + 5 * 0.0001)])
def test_similarities_in_other_spaces(open_store: Open, space: str, expected: float) -> None:
    """1 / (1 + distance) under "l2", so that cutoffs have a scale; dot products as they are."""
    store = open_store(space=space)
    store.add([text_node("a", "red apple"), text_node("b", "green apple")])
    found = ask(store, k=2)
    assert found.ids == ["a", "b"] and found.similarities is not None
    assert found.similarities[1] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("mode", [VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE])
def test_a_search_by_words(store: NoPokeVectorStore, mode: VectorStoreQueryMode) -> None:
    """Only those with a word of the question, by BM25; an embedding is not needed."""
    found = store.query(VectorStoreQuery(query_str="green apple", similarity_top_k=5, mode=mode))
    want = store.client.query(text="green apple", k=5)
    assert found.ids == [hit.id for hit in want] == ["b", "a"]
    assert found.similarities == [hit.score for hit in want]
    assert ask(store, "green apple", mode=mode, sparse_top_k=1).ids == ["b"]
    assert ask(store, "green apple", mode=mode, filters=only(test("n", FilterOperator.LT, 1))).ids == ["a"]


def test_a_search_by_words_and_vector(store: NoPokeVectorStore) -> None:
    """Fused by ranks; with alpha by scores, from 0, words alone, to 1, vector alone."""
    store.add([text_node("z", "unrelated words about zanzibar")])
    hybrid = VectorStoreQueryMode.HYBRID
    assert "z" not in (ask(store, "red zanzibar", k=2).ids or [])
    found = ask(store, "red zanzibar", k=2, mode=hybrid)
    want = store.client.query(vector_of("red zanzibar"), 2, text="red zanzibar")
    assert found.ids == [hit.id for hit in want] and "z" in found.ids
    assert found.similarities == [hit.score for hit in want]
    assert ask(store, "red zanzibar", k=1, mode=hybrid, alpha=0.0).ids == ["z"]
    assert ask(store, "red zanzibar", k=3, mode=hybrid, alpha=1.0).ids == ask(store, "red zanzibar", k=3).ids
    assert len(ask(store, "red", k=2, mode=hybrid, hybrid_top_k=4).ids or []) == 4


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8, 1.0])
def test_marginal_relevance(open_store: Open, rng: np.random.Generator, threshold: float) -> None:
    """The two that LlamaIndex's own function picks. (Of more it compares each with the one before it only.)"""
    vectors = rng.normal(size=(40, 8)).astype(np.float32)
    store = open_store()
    ids = [f"n{at}" for at in range(40)]
    store.add([TextNode(id_=id_, embedding=vector.tolist()) for id_, vector in zip(ids, vectors, strict=True)])
    question = rng.normal(size=8).tolist()
    _, want = get_top_k_mmr_embeddings(
        question, vectors.tolist(), similarity_top_k=2, embedding_ids=ids, mmr_threshold=threshold
    )
    query = VectorStoreQuery(question, 2, mode=VectorStoreQueryMode.MMR)
    found = store.query(query, mmr_threshold=threshold, mmr_prefetch_factor=20, target_recall=1.0)
    assert found.ids == want and found.similarities is not None
    assert found.similarities[0] == pytest.approx(store.client.query(question, 1)[0].score)
    query.mmr_threshold = threshold
    assert store.query(query, mmr_prefetch_k=40, target_recall=1.0).ids == want
    assert len(store.query(query, mmr_prefetch_k=1).ids or []) == 2
    query.similarity_top_k = 6
    assert len(set(store.query(query).ids or [])) == 6


def test_queries_without_a_meaning_are_refused(store: NoPokeVectorStore, open_store: Open) -> None:
    """By name, on an empty collection too; nothing is passed over."""
    mode = VectorStoreQueryMode
    for options, named in (
        ({"mode": mode.SVM}, "DEFAULT, TEXT_SEARCH, SPARSE, HYBRID, MMR"),
        ({"mode": mode.SEMANTIC_HYBRID}, "SEMANTIC_HYBRID"),
        ({"mode": mode.LINEAR_REGRESSION}, "LINEAR"),
        ({"embedding_field": "x"}, "embedding_field"),
        ({"output_fields": ["x"]}, "output_fields"),
        ({"k": 0}, "k"),
        ({"mode": mode.MMR, "k": 0}, "similarity_top_k"),
        ({"mode": mode.MMR, "mmr_threshold": 2.0}, "mmr_threshold"),
        ({"mode": mode.MMR, "kwargs": {"mmr_prefetch_k": 9, "mmr_prefetch_factor": 2}}, "both"),
        ({"mode": mode.HYBRID, "alpha": 2.0}, "alpha"),
        ({"mode": mode.TEXT_SEARCH, "kwargs": {"ef": 5}}, "ef"),
    ):
        with pytest.raises(InvalidInputError, match=named):
            ask(store, **options)  # type: ignore[arg-type]
    for query, named in (
        (VectorStoreQuery(query_str="x"), "query_embedding"),
        (VectorStoreQuery(query_embedding=vector_of("x"), mode=mode.HYBRID), "query_str"),
        (VectorStoreQuery(query_embedding=vector_of("x"), mode=mode.TEXT_SEARCH), "query_str"),
    ):
        with pytest.raises(InvalidInputError, match=named):
            store.query(query)
    with pytest.raises(TypeError, match="nonsense"):
        ask(store, kwargs={"nonsense": 1})


# --- filters ---------------------------------------------------------------------------------------------------

O = FilterOperator  # noqa: E741  # the operators, in tables


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (only(test("n", O.EQ, 1)), "b"),
        (only(test("n", O.NE, 1)), "acde"),
        (only(test("n", O.GT, 3)), "e"),
        (only(test("n", O.GTE, 3)), "de"),
        (only(test("n", O.LT, 1.5)), "ab"),
        (only(test("n", O.LTE, 0)), "a"),
        (only(test("n", O.IN, [0, 4, 9])), "ae"),
        (only(test("n", O.NIN, [0, 4, 9])), "bcd"),
        (only(test("tags", O.ANY, ["r", "g"])), "abc"),
        (only(test("tags", O.ALL, ["x", "r"])), "ac"),
        (only(test("tags", O.CONTAINS, "b")), "d"),
        (only(test("ref_doc_id", O.TEXT_MATCH, "rui")), "ab"),
        (only(test("ref_doc_id", O.TEXT_MATCH, "RUI")), ""),
        (only(test("ref_doc_id", O.TEXT_MATCH, "%")), ""),
        (only(test("doc_id", O.EQ, "rest")), "cde"),
        (only(test("tags", O.IS_EMPTY)), "e"),
        (only(test("absent", O.IS_EMPTY)), "abcde"),
        (only(test("n", O.EQ, "1")), ""),
        (only(test("absent", O.NE, 1)), "abcde"),
        (only(test("n", O.GT, 0), test("n", O.LT, 3)), "bc"),
        (only(test("n", O.GT, 0), test("n", O.LT, 3), condition=None), "bc"),
        (only(test("n", O.EQ, 0), test("n", O.EQ, 3), condition=FilterCondition.OR), "ad"),
        (only(test("n", O.EQ, 0), test("n", O.EQ, 3), condition=FilterCondition.NOT), "bce"),
        (only(only(test("n", O.EQ, 0), test("n", O.EQ, 3), condition=FilterCondition.OR), test("n", O.GT, 0)), "d"),
        (only(only(only(test("n", O.EQ, 0)), condition=FilterCondition.NOT), test("n", O.LT, 3)), "bc"),
        (only(), "abcde"),
        (only(condition=FilterCondition.NOT), "abcde"),
        (only(only(condition=FilterCondition.OR), test("n", O.EQ, 2)), "c"),
    ],
)
def test_filters(store: NoPokeVectorStore, filters: MetadataFilters, expected: str) -> None:
    """Each operator and condition, in every kind of search, in reading and in deleting."""
    for options in (
        {},
        {"mode": VectorStoreQueryMode.HYBRID},
        {"mode": VectorStoreQueryMode.MMR},
    ):
        assert sorted(ask(store, filters=filters, **options).ids or []) == list(expected)
    assert [node.node_id for node in store.get_nodes(filters=filters)] == list(expected)
    assert [node.node_id for node in store.get_nodes(["e", "b", "x"], filters)] == [i for i in "eb" if i in expected]
    if filters.filters:
        store.delete_nodes(["a", "b", "x"], filters)
        assert [record.id for record in store.client.scan()] == sorted({*IDS} - ({"a", "b"} & {*expected}))


def test_filters_pass_what_llama_index_says(store: NoPokeVectorStore, rng: np.random.Generator) -> None:
    """Random metadata and filters; its own function is the model, applied to each level of nested ones."""

    def one_of(*choices: Any) -> Any:
        return choices[rng.integers(0, len(choices))]

    store.clear()
    metadatas = {}
    for at in range(60):
        metadata: dict[str, Any] = {}
        if rng.random() < 0.8:
            metadata["number"] = one_of(-2, 0, 1, 1.5, 7)
        if rng.random() < 0.8:
            metadata["word"] = one_of("", "red", "red_%", "a.b", "%")
        if rng.random() < 0.8:
            metadata["a.b"] = [one_of("x", "y", "z") for _ in range(rng.integers(0, 3))]
        metadatas[f"n{at:02}"] = metadata
    store.add([TextNode(id_=id_, metadata=m, embedding=vector_of("red")) for id_, m in metadatas.items()])

    def random_test() -> MetadataFilter:
        match one_of("number", "word", "letters"):
            case "number":
                operator, value = (
                    one_of(O.EQ, O.NE, O.GT, O.GTE, O.LT, O.LTE, O.IN, O.NIN, O.IS_EMPTY),
                    one_of(-2, 0, 7),
                )
                return test("number", operator, [value, 1] if operator in (O.IN, O.NIN) else value)
            case "word":
                operator, value = (
                    one_of(O.EQ, O.NE, O.GT, O.TEXT_MATCH, O.CONTAINS, O.IS_EMPTY),
                    one_of("red", "_", "%"),
                )
                return test("word", operator, value)
        operator, value = one_of(O.ANY, O.ALL, O.CONTAINS, O.IS_EMPTY), one_of("x", "y", "w")
        return test("a.b", operator, [value, "x"] if operator in (O.ANY, O.ALL) else value)

    def random_filters(depth: int) -> MetadataFilters:
        parts = [
            random_filters(depth - 1) if depth and rng.random() < 0.3 else random_test()
            for _ in range(rng.integers(1, 4))
        ]
        return only(*parts, condition=one_of(*FilterCondition))

    def passes(filters: MetadataFilters, id_: str) -> bool:
        outcomes = [
            passes(part, id_)
            if isinstance(part, MetadataFilters)
            else build_metadata_filter_fn(metadatas.__getitem__, only(part))(id_)
            for part in filters.filters
        ]
        match filters.condition:
            case FilterCondition.OR:
                return any(outcomes)
            case FilterCondition.NOT:
                return not any(outcomes)
        return all(outcomes)

    for _ in range(60):
        filters = random_filters(2)
        assert [node.node_id for node in store.get_nodes(filters=filters)] == [
            id_ for id_ in sorted(metadatas) if passes(filters, id_)
        ], filters


def test_what_no_filter_can_say_is_refused(store: NoPokeVectorStore) -> None:
    """Never passed over: in a query, in reading and in deleting."""
    for filters, named in (
        (only(test("n", O.TEXT_MATCH_INSENSITIVE, "x")), "TEXT_MATCH_INSENSITIVE"),
        (only(only(test("n", O.TEXT_MATCH_INSENSITIVE, "x")), test("n", O.EQ, 1)), "TEXT_MATCH_INSENSITIVE"),
        (only(test("n", O.TEXT_MATCH, 1)), "TEXT_MATCH"),
        (only(test("n", O.IN, 1)), "list"),
        (only(test("n", O.ANY, "x")), "list"),
        (only(test("n", O.EQ, ["x"])), "in"),
        (only(test("n", O.GT, None)), "order"),
    ):
        for action in (
            lambda filters=filters: ask(store, filters=filters),
            lambda filters=filters: store.get_nodes(filters=filters),
            lambda filters=filters: store.delete_nodes(filters=filters),
        ):
            with pytest.raises(InvalidFilterError, match=named):
                action()
    assert store.client.count() == len(TEXTS)


def test_other_restrictions_of_a_query(store: NoPokeVectorStore) -> None:
    """Ids of nodes and of documents, and NoPokeDB's own filters, all together."""
    assert sorted(ask(store, node_ids=["a", "e", "x"]).ids or []) == ["a", "e"]
    assert sorted(ask(store, doc_ids=["rest", "x"]).ids or []) == ["c", "d", "e"]
    assert ask(store, doc_ids=["rest"], node_ids=["a", "c"]).ids == ["c"]
    assert len(ask(store, node_ids=[], doc_ids=[]).ids or []) == len(TEXTS)  # as an index asks
    options = {"where": {"n": {"$between": [1, 3]}}, "target_recall": 1.0}
    assert sorted(ask(store, kwargs=options, doc_ids=["rest"]).ids or []) == ["c", "d"]
    assert ask(store, kwargs={"max_distance": 0.1}).ids == ["a"]


# --- deleting --------------------------------------------------------------------------------------------------


def test_deleting(store: NoPokeVectorStore) -> None:
    """All nodes of a document, by id, all; a forgotten argument deletes nothing."""
    store.delete("fruit")
    assert [node.node_id for node in store.get_nodes()] == ["c", "d", "e"]
    store.delete("absent")
    store.delete_nodes(["c", "c", "absent"])
    assert [node.node_id for node in store.get_nodes()] == ["d", "e"]
    for wrong in ({}, {"filters": only()}, {"node_ids": "d"}, {"node_ids": ["d"], "hard": True}):
        with pytest.raises(InvalidInputError):
            store.delete_nodes(**wrong)  # type: ignore[arg-type]
    assert store.client.count() == 2
    store.delete_nodes([])
    assert store.client.count() == 2
    store.clear()
    assert store.get_nodes() == [] and ask(store).ids == []
    store.add([text_node("again", "red")])
    assert store.client.count() == 1


# --- opening ---------------------------------------------------------------------------------------------------


def test_the_first_nodes_create_the_collection(open_store: Open) -> None:
    """Before them there is nothing to find; afterwards it is there, with the dimension of their embeddings."""
    store = open_store()
    assert ask(store).ids == [] and store.get_nodes(["a"]) == []
    store.delete("x")
    store.delete_nodes(["x"])
    store.clear()
    with pytest.raises(CollectionNotFoundError):
        _ = store.client
    store.add([text_node("a", "red")])
    assert store.client.dim == len(WORDS)
    store.close()
    store.close()
    later = open_store()
    assert later.get_nodes(["a"])[0].get_content() == "red"
    later.close()
    with pytest.raises(InvalidInputError, match="dim"):
        open_store(dim=3).get_nodes()


def test_a_known_dimension_holds(open_store: Open) -> None:
    store = open_store(dim=3, space="ip")
    assert store.client.space == "ip" and store.get_nodes() == []
    with pytest.raises(InvalidInputError, match="3"):
        store.add([text_node("a", "red")])


@pytest.mark.engines("embedded")
def test_reading_only_needs_a_collection(open_store: Open) -> None:
    with pytest.raises(CollectionNotFoundError):
        open_store(read_only=True).get_nodes()
    with pytest.raises(CollectionNotFoundError):
        open_store(read_only=True).add([text_node("a", "red")])


def test_an_open_collection_is_shared_and_left_open(open_db: Callable[..., NoPokeDB], tmp_path: Path) -> None:
    """There is one truth, and one writer."""
    db = open_db(dim=len(WORDS))
    with NoPokeVectorStore(database=db) as store:
        store.add([text_node("a", "red")])
        assert store.client is db and db["a"].text == "red"
    assert db.count() == 1
    for both in ({"path": tmp_path}, {"collection": "x"}, {"dim": 3}, {"space": "l2"}):
        with pytest.raises(InvalidInputError, match="both"):
            NoPokeVectorStore(database=db, **both)  # type: ignore[arg-type]


# --- LlamaIndex around it --------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_async", [False, True])
def test_an_index(open_store: Open, use_async: bool) -> None:
    """Documents in, nodes out, by retrievers of several kinds; documents are deleted and renewed; opened again."""
    store = open_store()
    documents = [Document(id_=f"doc-{id_}", text=text) for id_, text in zip(IDS, TEXTS, strict=True)]
    index = VectorStoreIndex.from_documents(
        documents,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=Words(),
        use_async=use_async,
    )
    assert store.client.count() == len(TEXTS)
    found = index.as_retriever(similarity_top_k=2).retrieve("deep sea")
    assert [node.text for node in found] == ["deep sea", "blue sea"]
    assert found[0].score == pytest.approx(1.0) and found[0].node.ref_doc_id == "doc-e"
    for mode in ("hybrid", "text_search", "sparse", "mmr"):
        retriever = index.as_retriever(similarity_top_k=1, vector_store_query_mode=mode)
        assert retriever.retrieve("green apple")[0].text == "green apple"
    filters = only(test("ref_doc_id", O.NE, "doc-e"))
    assert index.as_retriever(filters=filters, similarity_top_k=1).retrieve("deep sea")[0].text == "blue sea"
    cut = SimilarityPostprocessor(similarity_cutoff=0.9)
    assert [node.text for node in cut.postprocess_nodes(found)] == ["deep sea"]
    index.delete_ref_doc("doc-e")
    index.update_ref_doc(Document(id_="doc-a", text="rare brick"))
    store.close()
    again = VectorStoreIndex.from_vector_store(open_store(), embed_model=Words())
    assert again.as_retriever(similarity_top_k=1).retrieve("rare")[0].text == "rare brick"
    texts = {node.get_content() for node in again.vector_store.get_nodes()}
    assert texts == {"rare brick", "green apple", "red brick", "blue sea"}


def test_a_mock_embedding(open_store: Open) -> None:
    """All vectors alike: ties come by id, and as many as were asked for."""
    store = open_store()
    nodes = [TextNode(id_=id_, text=text) for id_, text in zip(IDS, TEXTS, strict=True)]
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=MockEmbedding(embed_dim=16))
    assert [node.node_id for node in index.as_retriever(similarity_top_k=3).retrieve("x")] == ["a", "b", "c"]


def test_a_pipeline_writes_only_what_changed(open_store: Open) -> None:
    """With a document store beside it, documents that changed take the place of their former nodes."""
    store = open_store()
    pipeline = IngestionPipeline(
        transformations=[Words()],
        docstore=SimpleDocumentStore(),
        vector_store=store,
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )
    documents = [Document(id_=id_, text=text) for id_, text in zip(IDS, TEXTS, strict=True)]
    assert len(pipeline.run(documents=documents)) == len(TEXTS)
    documents[0] = Document(id_="a", text="rare apple")
    assert len(pipeline.run(documents=documents[:4])) == 1
    assert {record.text for record in store.client.scan(include=("text",))} == {"rare apple", *TEXTS[1:4]}


async def test_the_awaitable_methods_answer_alike(store: NoPokeVectorStore) -> None:
    """Each does what its synchronous twin does."""
    filters = only(test("n", O.LTE, 3))
    for mode in ("default", "hybrid", "text_search", "mmr"):
        query = VectorStoreQuery(
            vector_of("red sea"), 3, query_str="red sea", mode=VectorStoreQueryMode(mode), filters=filters
        )
        assert await store.aquery(query, where={"n": {"$gt": 0}}) == store.query(query, where={"n": {"$gt": 0}})
    assert await store.aget_nodes(["e", "a"], filters) == store.get_nodes(["e", "a"], filters)
    assert await store.async_add([text_node("r", "rare", "doc")]) == ["r"]
    assert [node.node_id for node in await store.aget_nodes(["r"])] == ["r"]
    await store.adelete("doc")
    await store.adelete_nodes(["a"])
    await store.adelete_nodes(filters=only(test("n", O.EQ, 4)))
    assert [node.node_id for node in store.get_nodes()] == ["b", "c", "d"]
    with pytest.raises(InvalidInputError):
        await store.adelete_nodes()
    await store.aclear()
    assert store.get_nodes() == []
    await store.aclose()


# --- the extra -------------------------------------------------------------------------------------------------


@pytest.mark.engines("embedded")
def test_a_missing_extra_says_how_to_install_it(tmp_path: Path) -> None:
    """The rest of the package needs no framework, and the adapter names its own extra."""
    code = (
        "import sys; sys.modules['llama_index'] = None; import nopokedb\n"
        "try:\n    import nopokedb.adapters.llama_index\nexcept ImportError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.search(r"llama-index-core: " + re.escape(install_hint("llama-index")), run.stdout)

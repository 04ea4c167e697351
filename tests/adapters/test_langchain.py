"""`NoPokeVectorStore`: LangChain's own standard suite on every engine, and what that suite does not ask."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nopokedb import DuplicateIdError, F, InvalidFilterError, InvalidInputError, NoPokeDB
from nopokedb.distribution import install_hint

for module in ("langchain_core", "langchain_tests"):
    pytest.importorskip(module, reason=f"{module} is missing: {install_hint('test-adapters')} (make test-adapters)")

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from langchain_tests.integration_tests.vectorstores import VectorStoreIntegrationTests

from nopokedb.adapters.langchain import NoPokeVectorStore

pytestmark = pytest.mark.engines

Open = Callable[..., NoPokeVectorStore]
TEXTS = ["red apple", "green apple", "red brick", "blue sea", "deep sea"]
METADATAS = [{"n": n, "tags": ["fruit"] if n < 2 else []} for n in range(len(TEXTS))]
IDS = list("abcde")


class Words(Embeddings):
    """One direction per word: what a cosine is can be counted by hand."""

    WORDS = ("red", "green", "blue", "deep", "apple", "brick", "sea", "rare")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.asked.append(text)
        return [0.01 + text.split().count(word) for word in self.WORDS]


@pytest.fixture
def open_store(engine: dict[str, Any]) -> Iterator[Open]:
    """Opens stores on this test's collection; whatever is still open is closed at the end."""
    opened: list[NoPokeVectorStore] = []

    def open_(embedding: Embeddings | None = None, **options: Any) -> NoPokeVectorStore:
        opened.append(NoPokeVectorStore(embedding, **engine, **options))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Open) -> NoPokeVectorStore:
    """Five documents of two words each."""
    store = open_store(Words(), text_language="none")
    assert store.add_texts(TEXTS, METADATAS, ids=IDS) == IDS
    return store


class TestStandardSuite(VectorStoreIntegrationTests):
    """What LangChain asks of every vector store, sync and async, unchanged."""

    @pytest.fixture
    def vectorstore(self, open_store: Open) -> VectorStore:
        return open_store(self.get_embeddings())


def ids_of(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


# --- searching -------------------------------------------------------------------------------------------------


def test_a_search_returns_the_record_as_a_document(store: NoPokeVectorStore) -> None:
    """Id, text and metadata come back as they were given, nearest first."""
    found = store.similarity_search("red apple", k=3)
    assert found[0] == Document(id="a", page_content="red apple", metadata=METADATAS[0])
    assert set(ids_of(found[1:])) == {"b", "c"}
    assert store.similarity_search("red apple") == store.similarity_search("red apple", k=4)
    assert len(store.similarity_search("red apple", k=99)) == len(TEXTS)


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"n": {"$gte": 3}}, {"d", "e"}),
        (F("tags").contains("fruit"), {"a", "b"}),
        ({"$id": {"$in": ["c", "zz"]}}, {"c"}),
        ({"n": {"$lt": 0}}, set()),
        ({"$not": {"tags": "fruit"}, "n": {"$ne": 2}}, {"d", "e"}),
    ],
)
def test_filters_apply_inside_every_search(store: NoPokeVectorStore, filter: Any, expected: set[str]) -> None:
    """A dict or an expression; as many documents as pass come back, by every kind of search."""
    vector = Words().embed_query("red apple")
    for found in (
        store.similarity_search("red apple", k=5, filter=filter),
        store.similarity_search_by_vector(vector, k=5, filter=filter),
        [document for document, _ in store.similarity_search_with_score("red apple", k=5, filter=filter)],
        [document for document, _ in store.similarity_search_with_relevance_scores("red apple", k=5, filter=filter)],
        store.max_marginal_relevance_search("red apple", k=5, filter=filter),
        store.max_marginal_relevance_search_by_vector(vector, k=5, filter=filter),
        store.as_retriever(search_kwargs={"k": 5, "filter": filter}).invoke("red apple"),
    ):
        assert set(ids_of(found)) == expected


def test_scores_are_cosines_and_relevance_is_never_negative(store: NoPokeVectorStore) -> None:
    """Scores are compared with NumPy; relevance is the cosine as well, and no warning says that it is out of range."""
    model = Words()
    question = np.array(model.embed_query("red apple"))
    for document, score in store.similarity_search_with_score("red apple", k=5):
        vector = np.array(model.embed_query(document.page_content))
        assert score == pytest.approx(vector @ question / np.linalg.norm(vector) / np.linalg.norm(question), abs=1e-6)
    relevant = store.similarity_search_with_relevance_scores("red apple", k=5)
    scored = store.similarity_search_with_score("red apple", k=5)
    assert [pair[0] for pair in relevant] == [pair[0] for pair in scored]
    assert [pair[1] for pair in relevant] == pytest.approx([pair[1] for pair in scored])
    store.database.upsert("far", -question, {}, text="opposite")
    relevance = {pair[0].id: pair[1] for pair in store.similarity_search_with_relevance_scores("red apple", k=6)}
    assert relevance["far"] == 0.0


def test_a_threshold_leaves_out_what_is_less_relevant(store: NoPokeVectorStore) -> None:
    """In a search and in a retriever."""
    options = {"k": 5, "score_threshold": 0.9}
    assert ids_of([pair[0] for pair in store.similarity_search_with_relevance_scores("red apple", **options)]) == ["a"]
    retriever = store.as_retriever(search_type="similarity_score_threshold", search_kwargs=options)
    assert ids_of(retriever.invoke("red apple")) == ["a"]


def test_relevance_in_other_spaces(open_store: Open) -> None:
    """Under "l2" it falls with the distance from 1; dot products have no scale, so a function is needed."""
    store = open_store(Words(), space="l2")
    store.add_texts(TEXTS, ids=IDS)
    found = {pair[0].id: pair[1] for pair in store.similarity_search_with_relevance_scores("red apple", k=5)}
    assert found["a"] == pytest.approx(1.0)
    assert found["b"] == pytest.approx(1 / (1 + 2**0.5))
    store.close()
    given = open_store(Words(), relevance_score_fn=lambda distance: 1 - distance / 100)
    assert given.similarity_search_with_relevance_scores("green apple", k=2)[1][1] == pytest.approx(0.98)


def test_relevance_under_dot_products_needs_a_function(open_store: Open) -> None:
    """It is refused by name before anything is asked."""
    store = open_store(Words(), space="ip")
    store.add_texts(TEXTS, ids=IDS)
    assert store.similarity_search_with_score("red apple", k=1)[0][1] > 2
    with pytest.raises(InvalidInputError, match="relevance_score_fn"):
        store.similarity_search_with_relevance_scores("red apple")


def test_words_and_vectors_together(store: NoPokeVectorStore) -> None:
    """`text=True` searches by the words of the question too; a str by others. Relevance tells of the vector alone."""
    store.add_texts(["unrelated words about zanzibar"], ids=["z"])
    assert "z" not in ids_of(store.similarity_search("red zanzibar", k=2))
    assert "z" in ids_of(store.similarity_search("red zanzibar", k=2, text=True))
    assert "z" in ids_of(store.similarity_search("red", k=2, text="zanzibar"))
    assert ids_of(store.similarity_search("red", k=1, text="zanzibar", fusion="weighted", alpha=0.0)) == ["z"]
    assert "z" not in ids_of(store.similarity_search("red zanzibar", k=2, text=False))
    retriever = store.as_retriever(search_kwargs={"k": 2, "text": True})
    assert "z" in ids_of(retriever.invoke("red zanzibar"))
    plain = {pair[0].id: pair[1] for pair in store.similarity_search_with_relevance_scores("red sea", k=6)}
    for document, relevance in store.similarity_search_with_relevance_scores("red sea", k=6, text=True):
        assert relevance == pytest.approx(plain[document.id])
    with pytest.raises(InvalidInputError, match="words"):
        store.similarity_search_by_vector(Words().embed_query("red"), text=True)


@pytest.mark.parametrize("lambda_mult", [0.0, 0.3, 0.7, 1.0])
def test_marginal_relevance_is_that_of_the_frameworks_own_function(
    open_store: Open, rng: np.random.Generator, lambda_mult: float
) -> None:
    """The same documents in the same order as LangChain's reference picks out of the fetch_k nearest."""
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    store = open_store(Words())
    store.database.add_many(vectors, ids=[str(n) for n in range(60)], texts=["x"] * 60)
    question = rng.normal(size=8).astype(np.float32)
    nearest = [int(hit.id) for hit in store.database.query(question, k=25, target_recall=1.0)]
    picked = maximal_marginal_relevance(question, list(vectors[nearest]), lambda_mult, 6)
    found = store.max_marginal_relevance_search_by_vector(
        question.tolist(), k=6, fetch_k=25, lambda_mult=lambda_mult, target_recall=1.0
    )
    assert [int(document.id or "") for document in found] == [nearest[at] for at in picked]


def test_a_varied_retriever(store: NoPokeVectorStore) -> None:
    """Not the same thing twice; fetch_k bounds the candidates, but never below k."""
    store.add_texts(["red apple"], ids=["again"])
    assert set(ids_of(store.similarity_search("red apple", k=2))) == {"a", "again"}
    retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 6, "lambda_mult": 0.2})
    found = ids_of(retriever.invoke("red apple"))
    assert found[0] in {"a", "again"} and found[1] not in {"a", "again"}
    assert len(store.max_marginal_relevance_search("red apple", k=3, fetch_k=1)) == 3


# --- writing ---------------------------------------------------------------------------------------------------


def test_a_document_with_an_id_that_exists_is_replaced_whole(store: NoPokeVectorStore) -> None:
    """Text, vector and metadata: nothing of the former document is left."""
    store.add_documents([Document(id="a", page_content="deep blue sea")])
    assert store.get_by_ids(["a"]) == [Document(id="a", page_content="deep blue sea")]
    assert ids_of(store.similarity_search("deep blue sea", k=1)) == ["a"]
    store.add_texts(["brick"], [None], ids=["b"])  # type: ignore[list-item]  # some callers do
    assert store.get_by_ids(["b"]) == [Document(id="b", page_content="brick")]
    assert store.database.count() == len(TEXTS)


def test_documents_without_ids_get_distinct_ones(store: NoPokeVectorStore) -> None:
    """Also where only some have one."""
    added = store.add_documents([Document(page_content="x"), Document(id="y", page_content="y")])
    assert added[1] == "y" and len(added[0]) == 36
    assert {document.page_content for document in store.get_by_ids(added)} == {"x", "y"}
    assert store.add_documents([]) == [] and store.add_texts([]) == []


def test_wrong_documents_change_nothing_and_cost_nothing(store: NoPokeVectorStore) -> None:
    """They are refused before anything is embedded or written."""
    model = store.embeddings
    assert isinstance(model, Words)
    model.asked.clear()
    for wrong, error in (
        (lambda: store.add_texts(["x", "y"], ids=["1"]), InvalidInputError),
        (lambda: store.add_texts(["x", "y"], [{}]), InvalidInputError),
        (lambda: store.add_texts([], ids=["1"]), InvalidInputError),
        (lambda: store.add_texts(["x", "y"], ids=["1", "1"]), DuplicateIdError),
        (lambda: store.add_texts(["x"], ids=[""]), InvalidInputError),
        (lambda: store.delete(), InvalidInputError),
        (lambda: store.delete(["a"], filter={"n": 1}), InvalidInputError),
        (lambda: store.delete(["a"], hard=True), InvalidInputError),
        (lambda: store.delete("a"), InvalidInputError),
        (lambda: store.delete(filter={}), InvalidInputError),
        (lambda: store.get_by_ids("abc"), InvalidInputError),
    ):
        with pytest.raises(error):
            wrong()
    assert model.asked == []
    with pytest.raises(InvalidInputError, match="metadata"):
        store.add_texts(["x", "y"], [{}, {"bad": object()}])
    for name in ("where", "include", "group_by", "like"):
        with pytest.raises(InvalidInputError, match=name):
            store.similarity_search("red", **{name: None})
    for arguments in ({"k": 0}, {"fetch_k": 0}, {"lambda_mult": 2}, {"diversity": 0.1}):
        with pytest.raises(InvalidInputError, match=next(iter(arguments))):
            store.max_marginal_relevance_search("red", **arguments)
    with pytest.raises(InvalidFilterError):
        store.similarity_search("red", filter=lambda document: True)
    with pytest.raises(TypeError, match="nonsense"):
        store.similarity_search("red", nonsense=1)
    assert [record.text for record in store.database.scan(include=("text",))] == TEXTS


def test_deleting_by_ids_or_by_filter(store: NoPokeVectorStore) -> None:
    """Absent ids and ids named twice do no harm."""
    assert store.delete(["a", "a", "absent"]) and store.delete([])
    assert store.delete(filter=F("n") >= 3)
    assert ids_of(store.get_by_ids([*IDS, "b"])) == ["b", "c", "b"]


def test_ids_that_are_ints_are_found_by_their_digits(store: NoPokeVectorStore) -> None:
    """Records of other programs are read, replaced and deleted by the id that a search shows; the str has precedence,
    and new ids stay strs."""
    db = store.database
    vector = Words().embed_query("rare rare rare")
    db.add(vector, {"by": "another program"}, id=-7, text="seven")
    (found,) = store.similarity_search("rare", k=1)
    assert found.id == "-7"
    assert store.get_by_ids(["-7"]) == [found]
    store.add_documents([Document(id="-7", page_content="eight")])
    assert db[-7].text == "eight" and "-7" not in db
    db.add(vector, id="-7", text="a str")
    assert store.get_by_ids(["-7"])[0].page_content == "a str"
    store.delete(["-7"])
    assert "-7" not in db and -7 in db
    store.delete(["-7"])
    assert -7 not in db
    for name in ("12", "007", str(2**63), "-0", "٣"):
        store.add_texts(["x"], ids=[name])
        assert name in db


def test_records_without_text_or_metadata_are_documents_too(store: NoPokeVectorStore) -> None:
    """A collection that another program wrote needs no preparation."""
    store.database.add(Words().embed_query("rare rare"), id="bare")
    assert store.similarity_search("rare", k=1) == [Document(id="bare", page_content="")]


def test_indexing_again_writes_and_deletes_only_what_changed(open_store: Open) -> None:
    """LangChain's indexing API keeps a store in step with its sources."""
    store = open_store(Words())
    manager = InMemoryRecordManager(namespace="test")
    manager.create_schema()
    documents = [Document(page_content=text, metadata={"source": text[0]}) for text in TEXTS]
    options: dict[str, Any] = {"cleanup": "full", "source_id_key": "source", "key_encoder": "sha256"}
    assert index(documents, manager, store, **options)["num_added"] == len(TEXTS)
    again = index(documents[1:], manager, store, **options)
    assert (again["num_added"], again["num_deleted"], again["num_skipped"]) == (0, 1, len(TEXTS) - 1)
    assert store.database.count() == len(TEXTS) - 1


# --- opening ---------------------------------------------------------------------------------------------------


def test_a_store_is_created_once_and_then_opened(open_store: Open) -> None:
    """Creating it asks the model for one vector, opening it for none; what was written is there."""
    model = Words()
    first = open_store(model, indexed_fields=("n",))
    assert len(model.asked) == 1
    first.add_texts(TEXTS, METADATAS, ids=IDS)
    first.close()
    first.close()
    later = Words()
    second = open_store(later)
    assert later.asked == [] and second.database.dim == len(Words.WORDS)
    assert ids_of(second.similarity_search("deep sea", k=1)) == ["e"]
    second.close()
    with pytest.raises(InvalidInputError, match="dim"):
        open_store(Words(), dim=3)


def test_a_known_dimension_is_not_asked_for(open_store: Open) -> None:
    model = Words()
    assert open_store(model, dim=len(Words.WORDS)).database.count() == 0
    assert model.asked == []


def test_from_texts_and_documents(engine: dict[str, Any]) -> None:
    """Both open a store and fill it; ids of the documents are kept."""
    with NoPokeVectorStore.from_texts(TEXTS, Words(), METADATAS, ids=IDS, **engine) as store:
        assert ids_of(store.similarity_search("blue sea", k=1)) == ["d"]
    more = [Document(id="f", page_content="rare brick")]
    with NoPokeVectorStore.from_documents(more, Words(), **engine) as store:
        assert ids_of(store.similarity_search("rare brick", k=1)) == ["f"]
        assert store.database.count() == len(TEXTS) + 1
    with pytest.raises(InvalidInputError):
        NoPokeVectorStore.from_texts(["x"], Words(), ids=["1", "2"], **engine)
    with NoPokeVectorStore(Words(), **engine) as store:  # the failed attempt holds no lock
        assert store.database.count() == len(TEXTS) + 1


def test_an_open_collection_is_shared_and_left_open(open_db: Callable[..., NoPokeDB], tmp_path: Path) -> None:
    """A program that has a handle gives it to the store; there is one truth, and one writer."""
    db = open_db(dim=len(Words.WORDS))
    with NoPokeVectorStore(Words(), database=db) as store:
        store.add_texts(["red apple"], ids=["a"])
        assert db["a"].text == "red apple"
        db.delete("a")
        assert store.similarity_search("red apple") == []
    assert db.count() == 0
    for both in ({"path": tmp_path}, {"collection": "x"}, {"dim": 3}, {"space": "l2"}):
        with pytest.raises(InvalidInputError, match="both"):
            NoPokeVectorStore(Words(), database=db, **both)


@pytest.mark.engines("embedded")
def test_the_collections_own_model(open_store: Open) -> None:
    """Without an embedding the collection makes the vectors, and remembers the model."""
    store = open_store(embed="wordllama")
    store.add_texts(["A recipe for bread", "How to fix a bicycle"], ids=["bread", "bicycle"])
    assert store.embeddings is None
    assert ids_of(store.similarity_search("baking", k=1)) == ["bread"]
    assert ids_of(store.max_marginal_relevance_search("repair a bike", k=2)) == ["bicycle", "bread"]
    store.add_texts(["How to fix a car"], ids=["bread"])
    assert ids_of(store.similarity_search("baking bread", k=2, filter={"$id": "bread"})) == ["bread"]
    store.close()
    assert ids_of(open_store().similarity_search("motor vehicle", k=1)) == ["bread"]
    with pytest.raises(InvalidInputError, match="one model"):
        open_store(Words(), embed="wordllama")


# --- asynchronous ----------------------------------------------------------------------------------------------


async def test_the_awaitable_methods_answer_alike(store: NoPokeVectorStore) -> None:
    """Each gives what its synchronous twin gives."""
    vector = Words().embed_query("red apple")
    options: dict[str, Any] = {"k": 3, "filter": {"n": {"$lte": 3}}}
    assert await store.asimilarity_search("red sea", **options) == store.similarity_search("red sea", **options)
    assert await store.asimilarity_search_with_score("red sea", **options) == store.similarity_search_with_score(
        "red sea", **options
    )
    assert await store.asimilarity_search_by_vector(vector, **options) == store.similarity_search_by_vector(
        vector, **options
    )
    assert await store.asimilarity_search_with_relevance_scores(
        "red", score_threshold=0.5, text=True, **options
    ) == store.similarity_search_with_relevance_scores("red", score_threshold=0.5, text=True, **options)
    assert await store.amax_marginal_relevance_search("red", **options) == store.max_marginal_relevance_search(
        "red", **options
    )
    assert await store.amax_marginal_relevance_search_by_vector(
        vector, lambda_mult=0.1, **options
    ) == store.max_marginal_relevance_search_by_vector(vector, lambda_mult=0.1, **options)
    assert await store.aget_by_ids(["e", "a"]) == store.get_by_ids(["e", "a"])
    for kind in ("similarity", "mmr"):
        retriever = store.as_retriever(search_type=kind, search_kwargs=options)
        assert await retriever.ainvoke("red apple") == retriever.invoke("red apple")
    assert await store.aadd_texts(["rare"], [{"n": 9}], ids=["r"]) == ["r"]
    assert (await store.asimilarity_search("rare", k=1))[0].metadata == {"n": 9}
    assert await store.adelete(filter={"n": 9}) and await store.aget_by_ids(["r"]) == []
    with pytest.raises(InvalidInputError):
        await store.adelete()


async def test_a_store_in_an_asynchronous_block(engine: dict[str, Any]) -> None:
    """Opened, filled and closed without waiting in the event loop."""
    async with await NoPokeVectorStore.afrom_texts(TEXTS, Words(), METADATAS, ids=IDS, **engine) as store:
        assert ids_of(await store.asimilarity_search("blue sea", k=1)) == ["d"]
    with pytest.raises(DuplicateIdError):
        await NoPokeVectorStore.afrom_texts(["x", "y"], Words(), ids=["1", "1"], **engine)
    store = await NoPokeVectorStore.afrom_documents([Document(id="f", page_content="rare")], Words(), **engine)
    assert store.database.count() == len(TEXTS) + 1
    await store.aclose()


# --- the extra -------------------------------------------------------------------------------------------------


@pytest.mark.engines("embedded")
def test_a_missing_extra_says_how_to_install_it(tmp_path: Path) -> None:
    """The rest of the package needs no framework, and the adapter names its own extra."""
    code = (
        "import sys; sys.modules['langchain_core'] = None; import nopokedb\n"
        "try:\n    import nopokedb.adapters.langchain\nexcept ImportError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.search(r"langchain-core: " + re.escape(install_hint("langchain")), run.stdout)

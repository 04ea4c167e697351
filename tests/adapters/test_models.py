"""Models of other libraries: real ones, made here, small, and read without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nopokedb import InvalidInputError, NoPokeDB
from nopokedb.distribution import install_hint
from nopokedb.embedding import FastEmbed, Model2Vec
from nopokedb.embedding.names import make_embedder

WHY = f"{install_hint('test-adapters')} (make test-adapters)"
pytest.importorskip("model2vec", reason=f"model2vec is missing: {WHY}")
pytest.importorskip("fastembed", reason=f"fastembed is missing: {WHY}")
onnx = pytest.importorskip("onnx", reason=f"onnx is missing: {WHY}")

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

WORDS = ["[UNK]", "[PAD]", "red", "green", "apple", "pear", "deep", "blue", "sea"]
DIM = 6
TABLE = np.random.default_rng(5).standard_normal((len(WORDS), DIM)).astype(np.float32)
TEXTS = ["red apple", "green pear", "deep blue sea"]


def tokenizer() -> Any:
    made = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    return made


def means(texts: list[str]) -> np.ndarray:
    """What both libraries have to make of the table."""
    return np.array([TABLE[[WORDS.index(word) for word in text.split()]].mean(axis=0) for text in texts])


@pytest.fixture
def static_model(tmp_path: Path) -> Path:
    """A folder that model2vec saved."""
    from model2vec import StaticModel

    StaticModel(TABLE, tokenizer(), normalize=False).save_pretrained(tmp_path / "fruit")
    return tmp_path / "fruit"


@pytest.fixture
def onnx_model(tmp_path: Path) -> Path:
    """A folder as fastembed wants it: the table as one Gather."""
    folder = tmp_path / "gather"
    folder.mkdir()
    ints, floats = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    names = ("input_ids", "attention_mask", "token_type_ids")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        "table",
        [onnx.helper.make_tensor_value_info(name, ints, ["n", "tokens"]) for name in names],
        [onnx.helper.make_tensor_value_info("last_hidden_state", floats, ["n", "tokens", DIM])],
        [onnx.numpy_helper.from_array(TABLE, "table")],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(made, str(folder / "model.onnx"))
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"pad_token_id": 1}')
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 32, "pad_token": "[PAD]"}')
    (folder / "special_tokens_map.json").write_text('{"pad_token": "[PAD]"}')
    return folder


@pytest.fixture(scope="module")
def registered() -> str:
    """The name by which fastembed knows a model of that kind."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        "tests/gather", PoolingType.MEAN, False, ModelSource(hf="tests/gather"), DIM, model_file="model.onnx"
    )
    return "tests/gather"


def test_model2vec(static_model: Path, tmp_path: Path) -> None:
    """From a folder, by name and as an object; found again wherever the folder is."""
    model = Model2Vec(static_model)
    assert np.allclose(model(TEXTS), means(TEXTS), atol=1e-6) and model.name == "model2vec:fruit"
    assert model(["unknown words"]).tolist() == [[1.0, *[0.0] * (DIM - 1)]]
    with NoPokeDB(path=tmp_path / "db", embed=f"model2vec:{static_model}") as db:
        db.add_many(texts=TEXTS)
        assert db.dim == DIM and db.query("blue sea", k=1)[0].id == 2
    moved = tmp_path / "elsewhere" / "fruit"
    moved.parent.mkdir()
    static_model.rename(moved)
    with NoPokeDB(path=tmp_path / "db", embed=Model2Vec(moved)) as db:
        assert db.query("red apple", k=1)[0].id == 0

    from model2vec import StaticModel

    loaded = Model2Vec(StaticModel.from_pretrained(moved), name="mine")
    assert loaded.name == "mine" and np.allclose(loaded(TEXTS), means(TEXTS), atol=1e-6)


def test_fastembed(onnx_model: Path, registered: str, tmp_path: Path) -> None:
    """From a folder, by name and as an object."""
    model = FastEmbed(registered, path=onnx_model)
    assert np.allclose(model(TEXTS), means(TEXTS), atol=1e-6) and model.name == "fastembed:gather"
    embedder = make_embedder(f"fastembed:{registered}@{onnx_model}")
    assert np.allclose(embedder(TEXTS), means(TEXTS), atol=1e-6)
    with NoPokeDB(path=tmp_path / "db", embed=model) as db:
        db.add_many(texts=TEXTS)
        assert db.dim == DIM and db.query("blue sea", k=1)[0].id == 2

    from fastembed import TextEmbedding

    loaded = FastEmbed(TextEmbedding(registered, specific_model_path=str(onnx_model)))
    assert loaded.name == "fastembed:gather" and np.allclose(loaded(TEXTS), means(TEXTS), atol=1e-6)


NO_NETWORK = """
import socket, sys
def refused(*a, **k):
    raise SystemExit("a model asked for the network")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refused
from nopokedb import InvalidInputError
from nopokedb.embedding import FastEmbed, Model2Vec
for make in (
    lambda: Model2Vec("minishlab/potion-base-8M"),
    lambda: Model2Vec("/no/such/folder"),
    lambda: Model2Vec(sys.argv[1]),
    lambda: FastEmbed("BAAI/bge-small-en-v1.5", cache_dir=sys.argv[1]),
    lambda: FastEmbed("BAAI/bge-small-en-v1.5", path="/no/such/folder"),
    lambda: FastEmbed("BAAI/bge-small-en-v1.5", path=sys.argv[1]),
    lambda: FastEmbed("no/such-model"),
):
    try:
        make()
    except InvalidInputError as error:
        assert "nothing is downloaded" in str(error), error
    else:
        raise SystemExit("made")
print("refused")
"""


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    """A name without files on this machine is refused, and no connection is tried."""
    arguments = [sys.executable, "-c", NO_NETWORK, str(tmp_path)]
    run = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.stdout == "refused\n", run.stdout + run.stderr


def test_a_foreign_folder_does_not_choose_what_is_loaded(static_model: Path, tmp_path: Path) -> None:
    """A collection knows its model's name; only who opens it says where the model is."""
    with NoPokeDB(path=tmp_path / "db", embed=f"model2vec:{static_model}") as db:
        db.add(text="red apple")
    with NoPokeDB(path=tmp_path / "db") as db, pytest.raises(InvalidInputError, match="embed="):
        db.query("red apple")

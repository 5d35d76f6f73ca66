"""CLIP: the real loading and comparing code, on tiny encoders of the same form that the test makes."""

from pathlib import Path

import numpy as np
import pytest

from enrichers.catalogue import Catalogue
from enrichers.contract import Result
from enrichers.errors import SettingInvalid
from enrichers.image import Pixels
from enrichers.loading import ProcessLoader
from enrichers.similarity import Similarity
from enrichers.tags import Tags
from enrichers.weights import ModelStore
from tests.unit.scene_images import image

SIDE = 8

#: words that the tiny text encoder knows, and the colour channel that it puts each at
WORDS = {"fire": 0, "grass": 1, "water": 2}


def image_encoder(path: Path) -> None:
    """(n, 3, 8, 8) `pixel_values` → `image_embeds`: the mean of each channel."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["pixel_values"], ["image_embeds"], axes=[2, 3], keepdims=0)],
        "image",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["n", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9), str(path))


def text_encoder(path: Path, vocabulary: dict[str, int]) -> None:
    """(n, l) `input_ids` → `text_embeds`: the sum of a table's rows, where only colour words have something."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    table = np.zeros((len(vocabulary), 3), np.float32)
    for word, channel in WORDS.items():
        table[vocabulary[word], channel] = 1
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("ReduceSum", ["rows", "axes"], ["text_embeds"], keepdims=0),
        ],
        "text",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "l"])],
        [helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axes")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9), str(path))


def tokenizer(path: Path, vocabulary: dict[str, int]) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = tokenizers.Tokenizer(WordLevel(vocabulary, unk_token="[unk]"))
    made.pre_tokenizer = Whitespace()
    made.save(str(path))


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    vocabulary = {word: number for number, word in enumerate(["[unk]", "a", "photo", "of", ".", *WORDS])}
    image_encoder(tmp_path / "image.onnx")
    text_encoder(tmp_path / "text.onnx", vocabulary)
    tokenizer(tmp_path / "tokenizer.json", vocabulary)
    files = {"image": "image.onnx", "text": "text.onnx", "tokenizer": "tokenizer.json"}
    entries = {
        f"tiny_{part}": {
            "task": "similarity",
            "provider": "file",
            "path": str(tmp_path / file),
            "runtime": "none" if part == "tokenizer" else "onnx",
        }
        for part, file in files.items()
    }
    whole = {
        "task": "similarity",
        "form": "clip",
        "parts": {part: f"tiny_{part}" for part in files},
        "options": {"side": SIDE, "mean": [0, 0, 0], "deviation": [1, 1, 1], "tokens": 12, "padding": 0},
    }
    return Catalogue.load({**entries, "tiny": whole})


def colour(*channels: int) -> Pixels:
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[:] = channels
    return picture


def test_zero_shot_tags_are_the_words_that_fit_best(catalogue: Catalogue, tmp_path: Path) -> None:
    enricher = Tags({**Tags.defaults, "model": "tiny", "words": list(WORDS)})
    enricher.catalogue = catalogue
    enricher.load(ProcessLoader(ModelStore(tmp_path, catalogue)))
    outcomes = enricher.enrich([image(colour(250, 20, 20)), image(colour(10, 30, 240))])
    answers = [outcome.answer for outcome in outcomes if isinstance(outcome, Result)]
    assert [answer["labels"] for answer in answers] == [["fire"], ["water"]]
    assert answers[0]["items"][0]["score"] > 0.9


def test_similarity_takes_the_image_encoders_vector(catalogue: Catalogue, tmp_path: Path) -> None:
    enricher = Similarity({**Similarity.defaults, "model": "tiny"})
    enricher.catalogue = catalogue
    enricher.load(ProcessLoader(ModelStore(tmp_path, catalogue)))
    (outcome,) = enricher.enrich([image(colour(255, 0, 0))])
    assert isinstance(outcome, Result)
    assert outcome.answer["vector"] == pytest.approx([1, 0, 0])
    assert outcome.answer["regions"] == b""


def test_another_model_has_another_fingerprint(catalogue: Catalogue) -> None:
    usual, other = Similarity(Similarity.defaults), Similarity({**Similarity.defaults, "model": "tiny"})
    usual.catalogue = other.catalogue = catalogue
    assert usual.fingerprint({}) != other.fingerprint({})
    assert other.model == "tiny_image"


def test_own_words_need_a_clip(tmp_path: Path) -> None:
    enricher = Tags({**Tags.defaults, "words": ["fire"]})
    with pytest.raises(SettingInvalid, match="CLIP"):
        enricher.load(ProcessLoader(ModelStore(tmp_path, Catalogue.load())))


def test_a_model_of_another_form_is_refused(tmp_path: Path) -> None:
    enricher = Similarity({**Similarity.defaults, "model": "open_nsfw"})
    with pytest.raises(SettingInvalid, match="clip"):
        enricher.load(ProcessLoader(ModelStore(tmp_path, Catalogue.load())))

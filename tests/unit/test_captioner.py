"""Captioners of the catalogue, on tiny graphs of the same form: loaded, searched and read by the real code."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from enrichers.beam_search import search
from enrichers.captioner import CachedDecoder, _search, normal, open_captioner
from enrichers.catalogue import Catalogue
from enrichers.errors import SettingInvalid
from enrichers.loading import ProcessLoader
from enrichers.weights import ModelStore

WORDS = ["<s>", "</s>", "a", "red", "blue", "picture"]
START, END = 0, 1
WIDTH = 4
RNG = np.random.default_rng(2)  # its sentences differ in words and length
#: the decoder's weights: what each token adds to the state, and what states and pictures say of the next token
TOKENS = RNG.normal(0, 1, (len(WORDS), WIDTH)).astype(np.float32)
FROM_TEXT = RNG.normal(0, 1, (WIDTH, len(WORDS))).astype(np.float32)
FROM_PICTURE = RNG.normal(0, 3, (WIDTH, len(WORDS))).astype(np.float32)
FROM_PICTURE[3, END] = -3  # so that no sentence is empty
OPTIONS: dict[str, Any] = {
    "size": 8,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "layers": 1,
    "heads": 1,
    "head_size": WIDTH,
    "start": START,
    "end": END,
    "beams": 3,
    "longest": 6,
}


def weight(name: str, values: NDArray[Any]) -> onnx.TensorProto:
    return numpy_helper.from_array(values, name)


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any]) -> None:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def floats(name: str, *shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def integers(name: str, *shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, shape)


def encoder(path: Path, name: str = "last_hidden_state") -> None:
    """The mean of each channel, and a one, as a single state of width 4."""
    nodes = [
        helper.make_node("ReduceMean", ["pixel_values"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Pad", ["means", "pads", "one"], ["four"]),
        helper.make_node("Unsqueeze", ["four", "first"], [name]),
    ]
    weights = [weight("pads", np.array([0, 0, 0, 1])), weight("one", np.float32(1)), weight("first", np.array([1]))]
    save(path, nodes, [floats("pixel_values", "n", 3, 8, 8)], [floats(name, "n", 1, WIDTH)], weights)


def decoder(path: Path, *, florence: bool = False) -> None:
    """A merged decoder: the state is the sum of all tokens so far, which only the cache still knows.

    In Florence's form the cross-attention's keys are handed over as well: given out at the first step, and as nothing
    afterwards, as the merged graphs do.
    """
    infix = "decoder." if florence else ""
    past, present = f"past_key_values.0.{infix}", f"present.0.{infix}"
    embed = (
        [helper.make_node("Identity", ["inputs_embeds"], ["added"])]
        if florence
        else [helper.make_node("Gather", ["tokens", "input_ids"], ["added"])]
    )
    nodes = [
        *embed,
        helper.make_node("Unsqueeze", ["added", "heads"], ["new"]),
        helper.make_node("Concat", [f"{past}key", "new"], [f"{present}key"], axis=2),
        helper.make_node("Concat", [f"{past}value", "new"], [f"{present}value"], axis=2),
        helper.make_node("ReduceSum", [f"{present}value", "places"], ["state"], keepdims=0),
        helper.make_node("MatMul", ["state", "from_text"], ["text"]),
    ]
    inputs = [
        floats("inputs_embeds", "n", "s", WIDTH) if florence else integers("input_ids", "n", "s"),
        floats("encoder_hidden_states", "n", "l", WIDTH),
        helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1]),
        floats(f"{past}key", "n", 1, "p", WIDTH),
        floats(f"{past}value", "n", 1, "p", WIDTH),
    ]
    outputs = [floats("logits", "n", 1, len(WORDS)), floats(f"{present}key"), floats(f"{present}value")]
    weights = [
        weight("tokens", TOKENS),
        weight("heads", np.array([1])),
        weight("places", np.array([1, 2])),
        weight("from_text", FROM_TEXT),
        weight("from_picture", FROM_PICTURE),
        weight("first", np.array([1])),
    ]
    seen = "encoder_hidden_states"
    if florence:
        inputs += [integers("encoder_attention_mask", "n", "l")]
        for kind in ("key", "value"):
            inputs.append(floats(f"past_key_values.0.encoder.{kind}", "n", 1, "e", WIDTH))
            outputs.append(floats(f"present.0.encoder.{kind}"))
        # first step: from the states; later: the cache must bring them, and what comes out is empty
        keep = helper.make_graph(
            [
                helper.make_node("Squeeze", ["past_key_values.0.encoder.key", "heads"], ["then_seen"]),
                helper.make_node("Slice", ["past_key_values.0.encoder.key", "zero", "zero", "zero"], ["then_key"]),
            ],
            "later",
            [],
            [floats("then_seen"), floats("then_key")],
        )
        make = helper.make_graph(
            [
                helper.make_node("Identity", ["encoder_hidden_states"], ["else_seen"]),
                helper.make_node("Unsqueeze", ["encoder_hidden_states", "heads"], ["else_key"]),
            ],
            "first",
            [],
            [floats("else_seen"), floats("else_key")],
        )
        nodes += [
            helper.make_node(
                "If", ["use_cache_branch"], ["seen", "present.0.encoder.key"], then_branch=keep, else_branch=make
            ),
            helper.make_node("Identity", ["present.0.encoder.key"], ["present.0.encoder.value"]),
        ]
        weights.append(weight("zero", np.array([0])))
        seen = "seen"
    else:
        nodes.append(helper.make_node("Cast", ["use_cache_branch"], ["unused"], to=TensorProto.FLOAT))
    nodes += [
        helper.make_node("ReduceMean", [seen], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "from_picture"], ["picture"]),
        helper.make_node("Add", ["text", "picture"], ["sum"]),
        helper.make_node("Unsqueeze", ["sum", "first"], ["logits"]),
    ]
    save(path, nodes, inputs, outputs, weights)


def tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="</s>"))
    made.pre_tokenizer = Whitespace()
    made.save(str(path))


def loader_of(folder: Path, entries: dict[str, dict[str, Any]]) -> ProcessLoader:
    for entry in entries.values():
        path = Path(entry.get("path", "."))
        if path.is_file():
            entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    catalogue = Catalogue.load(entries, folder)
    return ProcessLoader(ModelStore(folder / "cache", catalogue), "cpu", 1)


def file_entry(path: Path, runtime: str = "onnx", **more: Any) -> dict[str, Any]:
    return {"task": "caption", "runtime": runtime, "provider": "file", "path": str(path), **more}


def without_cache(hidden: NDArray[np.float32], line: list[int]) -> NDArray[np.float32]:
    """The logits that the tiny decoder must give after these tokens."""
    logits: NDArray[np.float32] = TOKENS[line].sum(axis=0) @ FROM_TEXT + hidden @ FROM_PICTURE
    return logits


class Uncached:
    """The tiny decoder computed from whole sentences."""

    def __init__(self, hidden: NDArray[np.float32]) -> None:
        self.hidden, self.lines = hidden, [[] for _ in hidden]  # type: list[list[int]]

    def next(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        self.lines = [[*line, int(token)] for line, token in zip(self.lines, tokens, strict=True)]
        return np.stack([without_cache(h, line) for h, line in zip(self.hidden, self.lines, strict=True)])

    def reorder(self, rows: NDArray[np.int64]) -> None:
        self.hidden, self.lines = self.hidden[rows], [self.lines[row] for row in rows]


def pictures() -> list[NDArray[np.uint8]]:
    colours = [(200, 20, 30), (10, 30, 220), (120, 120, 120)]
    return [np.full((9 + 8 * at, 20, 3), colour, np.uint8) for at, colour in enumerate(colours)]


def expected(states: NDArray[np.float32]) -> list[str]:
    how = _search(OPTIONS)
    lines = search(Uncached(np.repeat(states, how.beams, axis=0)), len(states), how)
    return [" ".join(WORDS[token] for token in line) for line in lines]


def states() -> NDArray[np.float32]:
    means = normal(pictures(), OPTIONS).mean(axis=(2, 3))
    return np.concatenate([means, np.ones((len(means), 1), np.float32)], axis=1)


def test_encoder_and_cached_decoder_write_what_the_whole_sentences_say(tmp_path: Path) -> None:
    encoder(tmp_path / "encoder.onnx")
    decoder(tmp_path / "decoder.onnx")
    tokenizer(tmp_path / "tokenizer.json")
    loader = loader_of(
        tmp_path,
        {
            "tiny": {
                "task": "caption",
                "form": "encoder-decoder",
                "options": OPTIONS,
                "parts": {"encoder": "tiny_encoder", "decoder": "tiny_decoder", "tokenizer": "tiny_tokenizer"},
            },
            "tiny_encoder": file_entry(tmp_path / "encoder.onnx"),
            "tiny_decoder": file_entry(tmp_path / "decoder.onnx"),
            "tiny_tokenizer": file_entry(tmp_path / "tokenizer.json", "none"),
        },
    )
    captioner = open_captioner(loader.store.catalogue.entry("tiny"), loader)
    written = captioner.write(pictures())
    assert written == expected(states())
    assert len(set(written)) > 1  # the picture matters
    assert [captioner.write([picture])[0] for picture in pictures()] == written  # and its batch does not


def test_florence_feeds_an_instruction_and_keeps_the_cross_attention_of_the_first_step(tmp_path: Path) -> None:
    encoder(tmp_path / "vision.onnx", "image_features")
    decoder(tmp_path / "decoder.onnx", florence=True)
    tokenizer(tmp_path / "tokenizer.json")
    gather = [helper.make_node("Gather", ["tokens", "input_ids"], ["inputs_embeds"])]
    ids, embeds = integers("input_ids", "n", "s"), floats("inputs_embeds", "n", "s", WIDTH)
    save(tmp_path / "embedding.onnx", gather, [ids], [embeds], [weight("tokens", TOKENS)])
    masked = [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["inputs_embeds", "column"], ["last_hidden_state"]),
    ]
    inputs = [embeds, integers("attention_mask", "n", "s")]
    save(tmp_path / "encoder.onnx", masked, inputs, [floats("last_hidden_state")], [weight("last", np.array([2]))])
    names = ("vision", "embedding", "encoder", "decoder")
    cache = ["decoder.key", "decoder.value", "encoder.key", "encoder.value"]
    loader = loader_of(
        tmp_path,
        {
            "tiny": {
                "task": "caption",
                "form": "florence-2",
                "options": {**OPTIONS, "prompt": "a picture", "cache": cache},
                "parts": {name: f"tiny_{name}" for name in (*names, "tokenizer")},
            },
            **{f"tiny_{name}": file_entry(tmp_path / f"{name}.onnx") for name in names},
            "tiny_tokenizer": file_entry(tmp_path / "tokenizer.json", "none"),
        },
    )
    written = open_captioner(loader.store.catalogue.entry("tiny"), loader).write(pictures())
    prompt = TOKENS[[WORDS.index("a"), WORDS.index("picture")]]
    assert written == expected((states() + prompt.sum(axis=0)) / 3)  # the mean over one state and two words


def test_the_decoder_is_told_when_it_has_a_cache(tmp_path: Path) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.fed: list[dict[str, Any]] = []

        def run(self, inputs: Any) -> dict[str, Any]:
            self.fed.append(dict(inputs))
            n, past = inputs["past_key_values.0.key"].shape[0], inputs["past_key_values.0.key"].shape[2]
            cache = np.zeros((n, 1, past + 1, WIDTH), np.float32)
            return {"logits": np.zeros((n, 1, 6), np.float32), "present.0.key": cache, "present.0.value": cache}

    network = Recorder()
    steps = CachedDecoder(network, OPTIONS, np.zeros((2, 1, WIDTH), np.float32), {})
    for _ in range(3):
        steps.next(np.array([START, START]))
    assert [bool(fed["use_cache_branch"][0]) for fed in network.fed] == [False, True, True]
    assert [fed["input_ids"].shape for fed in network.fed] == [(2, 1)] * 3  # one token a step, never the sentence
    assert [fed["past_key_values.0.key"].shape[2] for fed in network.fed] == [0, 1, 2]


def test_a_saved_model_that_gives_token_ids(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

    class Tiny(tf.Module):  # type: ignore[misc,name-defined]
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, "image")])  # type: ignore[untyped-decorator]
        def caption(self, image: Any) -> Any:
            means = tf.reduce_mean(image, axis=[1, 2])
            colour = tf.where(means[:, 0] > means[:, 2], 3, 4)  # "red" or "blue"
            ones = tf.ones_like(colour)
            return {"tokens": tf.stack([START * ones, 2 * ones, colour, 5 * ones, END * ones, 3 * ones], axis=1)}

    module = Tiny()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.caption)
    (tmp_path / "words.txt").write_text("\n".join(WORDS), encoding="utf-8")
    loader = loader_of(
        tmp_path,
        {
            "tiny": {
                "task": "caption",
                "form": "token-ids",
                "options": {"size": 8, "layout": "nhwc", "vocabulary": "words", "start": START, "end": END},
                "parts": {"model": "tiny_model", "tokenizer": "tiny_words"},
            },
            "tiny_model": file_entry(tmp_path / "model", "tensorflow"),
            "tiny_words": file_entry(tmp_path / "words.txt", "none"),
        },
    )
    loader.store.pull("tiny_model")
    written = open_captioner(loader.store.catalogue.entry("tiny"), loader).write(pictures()[:2])
    assert written == ["a red picture", "a blue picture"]  # nothing after the end


def test_a_model_of_another_task_is_no_captioner(tmp_path: Path) -> None:
    loader = loader_of(tmp_path, {})
    with pytest.raises(SettingInvalid, match="is no captioner"):
        open_captioner(loader.store.catalogue.entry("centerface"), loader)

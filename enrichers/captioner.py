"""Captioners that look at the picture itself: an image encoder and a text decoder from the catalogue."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.beam_search import Search, Tokens, search
from enrichers.catalogue import Entry
from enrichers.contract import Loader, Network
from enrichers.errors import EnricherFailed, SettingInvalid
from enrichers.image import Pixels

Array = NDArray[Any]


class Captioner(Protocol):
    """Writes one sentence for each picture."""

    def write(self, pictures: Sequence[Pixels]) -> list[str]: ...


class MissingTokenizers(EnricherFailed):
    """This captioner needs the package `tokenizers`; install the extra `caption`."""


def open_captioner(entry: Entry, loader: Loader) -> Captioner:
    """The captioner that a catalogue entry describes, loaded; its `form` is one of FORMS. Raises SettingInvalid, and
    what `Loader.network` raises."""
    try:
        form = FORMS[str(entry.form)]
    except KeyError:
        known = ", ".join(sorted(FORMS))
        raise SettingInvalid(f"model {entry.name!r} is no captioner: its form is {entry.form!r}, not {known}") from None
    return form(entry, loader)


class CachedDecoder:
    """A transformer's decoder as Optimum exports it (`decoder_model_merged`): the keys and values of what was written
    so far go in as `past_key_values.*` and come out as `present.*`."""

    def __init__(self, network: Network, options: Mapping[str, Any], hidden: Array, fixed: Mapping[str, Array]) -> None:
        """`hidden` is (rows, l, d): what the encoder saw, a row a sentence. `fixed` is fed at each step as it is.
        `options`: `layers`, `heads`, `head_size`; `cache`: the names of a layer's tensors (`key`, `value`, or
        `decoder.key` …; those that begin with `encoder` are kept from the first step)."""
        self._network, self._fixed = network, {"encoder_hidden_states": hidden, **fixed}
        self._merged = bool(options.get("merged", True))
        self._embed: Callable[[Tokens], Array] | None = None
        shape = (len(hidden), int(options["heads"]), 0, int(options["head_size"]))
        names = options.get("cache", ("key", "value"))
        self._past: dict[str, Array] = {
            f"{layer}.{name}": np.zeros(shape, np.float32) for layer in range(int(options["layers"])) for name in names
        }
        self._begun = False

    def embedding(self, embed: Callable[[Tokens], Array]) -> "CachedDecoder":
        """Feeds `inputs_embeds`, made by `embed`, instead of `input_ids`."""
        self._embed = embed
        return self

    def next(self, tokens: Tokens) -> NDArray[np.float32]:
        column = tokens.reshape(-1, 1)
        feeds = {"inputs_embeds": self._embed(column)} if self._embed else {"input_ids": column}
        feeds |= self._fixed | {f"past_key_values.{name}": value for name, value in self._past.items()}
        if self._merged:
            feeds["use_cache_branch"] = np.array([self._begun])
        out = self._network.run(feeds)
        for name in self._past:
            if not (self._begun and ".encoder" in name):  # a merged graph gives nothing for these once they are there
                self._past[name] = out[f"present.{name}"]
        self._begun = True
        return np.asarray(out["logits"][:, -1], np.float32)

    def reorder(self, rows: Tokens) -> None:
        self._past = {name: value[rows] for name, value in self._past.items()}
        self._fixed = {name: value[rows] for name, value in self._fixed.items()}


class EncoderDecoder:
    """ViT-GPT2 and its like: pixels → states; states and tokens → logits. Parts `encoder`, `decoder`, `tokenizer`."""

    def __init__(self, entry: Entry, loader: Loader) -> None:
        self._options = entry.options
        self._encoder = loader.network(entry.parts["encoder"])
        self._decoder = loader.network(entry.parts["decoder"])
        self._text = _tokenizer(entry, loader)
        self._search = _search(self._options)

    def write(self, pictures: Sequence[Pixels]) -> list[str]:
        hidden = self._encoder.run({"pixel_values": normal(pictures, self._options)})["last_hidden_state"]
        rows = np.repeat(hidden, self._search.beams, axis=0)
        decoder = CachedDecoder(self._decoder, self._options, rows, {})
        return [self._text.decode(line).strip() for line in search(decoder, len(pictures), self._search)]


class Florence:
    """Florence-2: the picture's features and an instruction go through an encoder of their own. Parts `vision`,
    `embedding`, `encoder`, `decoder`, `tokenizer`; the option `prompt` is the instruction."""

    def __init__(self, entry: Entry, loader: Loader) -> None:
        self._options = entry.options
        self._vision, self._embedding, self._encoder, self._decoder = (
            loader.network(entry.parts[part]) for part in ("vision", "embedding", "encoder", "decoder")
        )
        self._text = _tokenizer(entry, loader)
        self._search = _search(self._options)
        self._prompt = np.array([self._text.encode(str(self._options["prompt"])).ids], np.int64)

    def write(self, pictures: Sequence[Pixels]) -> list[str]:
        features = self._vision.run({"pixel_values": normal(pictures, self._options)})["image_features"]
        prompt = np.repeat(self._embed(self._prompt), len(pictures), axis=0)
        embeds = np.concatenate([features, prompt], axis=1)
        mask = np.ones(embeds.shape[:2], np.int64)
        hidden = self._encoder.run({"inputs_embeds": embeds, "attention_mask": mask})["last_hidden_state"]
        hidden, mask = (np.repeat(array, self._search.beams, axis=0) for array in (hidden, mask))
        decoder = CachedDecoder(self._decoder, self._options, hidden, {"encoder_attention_mask": mask})
        lines = search(decoder.embedding(self._embed), len(pictures), self._search)
        return [self._text.decode(line).strip() for line in lines]

    def _embed(self, tokens: Tokens) -> Array:
        return self._embedding.run({"input_ids": tokens})["inputs_embeds"]


class TokenIds:
    """Any graph that gives token ids for a picture, such as a SavedModel: input `image`, output `tokens` (n, l)
    integers, read up to the option `end`. Part `tokenizer`: a `tokenizer.json`, or a text file with a word a line."""

    def __init__(self, entry: Entry, loader: Loader) -> None:
        self._options = entry.options
        self._network = loader.network(entry.parts["model"])
        self._text = _tokenizer(entry, loader)
        self._ignored = {int(self._options["start"]), int(self._options.get("pad", self._options["end"]))}

    def write(self, pictures: Sequence[Pixels]) -> list[str]:
        tokens = self._network.run({"image": normal(pictures, self._options)})["tokens"]
        return [self._text.decode(self._until_end(line)).strip() for line in tokens.astype(np.int64).tolist()]

    def _until_end(self, line: list[int]) -> list[int]:
        end = int(self._options["end"])
        first = line[1:] if line[:1] == [int(self._options["start"])] else line
        kept = first[: first.index(end)] if end in first else first
        return [token for token in kept if token not in self._ignored]


#: a catalogue entry's `form` → what runs it
FORMS: Mapping[str, Callable[[Entry, Loader], Captioner]] = {
    "encoder-decoder": EncoderDecoder,
    "florence-2": Florence,
    "token-ids": TokenIds,
}


def normal(pictures: Sequence[Pixels], options: Mapping[str, Any]) -> Array:
    """Pictures (h, w, 3) uint8 RGB → float32 (n, 3, size, size), or (n, size, size, 3) with `layout = "nhwc"`:
    squeezed to the square, divided by 255, less `mean`, divided by `std` (each one number a channel)."""
    size = int(options["size"])
    squares = np.stack([_squeezed(picture, size) for picture in pictures])
    if options.get("dtype") == "uint8":
        values: Array = squares
    else:
        mean, std = (
            np.asarray(options.get(key, default), np.float32) for key, default in (("mean", 0.5), ("std", 0.5))
        )
        values = ((squares.astype(np.float32) / 255 - mean) / std).astype(np.float32)
    return values if options.get("layout") == "nhwc" else np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def _squeezed(picture: Pixels, size: int) -> Array:
    smaller = min(picture.shape[:2]) < size
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC if smaller else cv2.INTER_AREA)


def _search(options: Mapping[str, Any]) -> Search:
    known = {"start", "end", "beams", "longest", "length_penalty", "forced_first", "no_repeat"}
    return Search(**{key: value for key, value in options.items() if key in known})


class _WordList:
    """A vocabulary with a word a line; a line's number is the token."""

    def __init__(self, text: str) -> None:
        self._words = text.splitlines()

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(self._words[token] for token in tokens if 0 <= token < len(self._words))


def _tokenizer(entry: Entry, loader: Loader) -> Any:
    path = loader.path(entry.parts["tokenizer"])
    if entry.options.get("vocabulary") == "words":
        with open(path, encoding="utf-8") as file:
            return _WordList(file.read())
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingTokenizers from error
    return Tokenizer.from_file(path)

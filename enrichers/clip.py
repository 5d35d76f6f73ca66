"""CLIP: pictures and sentences as vectors of one space (Radford et al., "Learning Transferable Visual Models From
Natural Language Supervision", 2021)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.catalogue import Entry
from enrichers.contract import Loader
from enrichers.embedders import Embedding, unit
from enrichers.errors import EnricherFailed, SettingInvalid
from enrichers.image import Image, Pixels

FORM = "clip"

#: mean and deviation of the published models' training pictures, RGB, 0 to 1
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

#: by what a cosine is multiplied before the softmax: the published models' learned temperature
SCALE = 100.0

#: sentences that are encoded at a time
BATCH = 64


class MissingTokenizers(EnricherFailed):
    """CLIP's text encoder needs the package `tokenizers`; install the extra `caption`."""


class Clip:
    """The encoders of one catalogue entry of the form "clip". Its `parts` are `image` and, for zero-shot tags, `text`
    and `tokenizer`; its `options`, all with the published models' values as defaults: `side`, `mean`, `deviation`,
    `tokens` (length of a sentence), `padding` (token), `scale`."""

    def __init__(self, entry: Entry, loader: Loader) -> None:
        """Raises SettingInvalid where the entry has no image encoder, and what `Loader.network` raises."""
        if entry.form != FORM or "image" not in entry.parts:
            raise SettingInvalid(f'model {entry.name!r} has no form = "{FORM}" with parts.image')
        self._entry, self._loader = entry, loader
        self._options = dict(entry.options)
        self._image = loader.network(entry.parts["image"])

    def look(self, images: Sequence[Image]) -> list[NDArray[np.float32]]:
        """The vectors of a batch's images, (d,) each, kept with them for others that use the same model."""
        unseen = [image for image in images if self._entry.name not in image.shared]
        if unseen:
            vectors = self.images([image.pixels for image in unseen])
            for image, vector in zip(unseen, vectors, strict=True):
                image.shared[self._entry.name] = vector
        return [image.shared[self._entry.name] for image in images]

    def images(self, pictures: Sequence[Pixels]) -> list[NDArray[np.float32]]:
        """`pictures`: (h, w, 3) uint8 RGB of any sizes. Vectors of length 1."""
        batch = np.stack([self._prepared(picture) for picture in pictures])
        return [unit(row) for row in _embeddings(self._image.run({"pixel_values": batch}), "image_embeds")]

    def texts(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """(n, d), vectors of length 1. Raises SettingInvalid where the entry has no text encoder, MissingTokenizers."""
        if not {"text", "tokenizer"} <= self._entry.parts.keys():
            raise SettingInvalid(f"model {self._entry.name!r} has no parts.text and parts.tokenizer")
        network = self._loader.network(self._entry.parts["text"])
        tokens = self._tokens(sentences)
        rows = [
            _embeddings(network.run({"input_ids": tokens[start : start + BATCH]}), "text_embeds")
            for start in range(0, len(tokens), BATCH)
        ]
        return np.stack([unit(row) for row in np.concatenate(rows)])

    def probabilities(self, vector: NDArray[np.float32], texts: NDArray[np.float32]) -> NDArray[np.float32]:
        """How well each sentence fits a picture: (n,), sum 1."""
        cosines = (texts @ vector) * float(self._options.get("scale", SCALE))
        powers = np.exp(cosines - cosines.max())
        return np.asarray(powers / powers.sum(), dtype=np.float32)

    def _prepared(self, picture: Pixels) -> NDArray[np.float32]:
        """(3, side, side): the shorter side brought to `side`, the middle cut out."""
        side = int(self._options.get("side", 224))
        height, width = picture.shape[:2]
        scale = side / min(height, width)
        size = (max(side, round(width * scale)), max(side, round(height * scale)))
        resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        top, left = (resized.shape[0] - side) // 2, (resized.shape[1] - side) // 2
        cut = resized[top : top + side, left : left + side].astype(np.float32) / 255
        mean = np.array(self._options.get("mean", MEAN), np.float32)
        deviation = np.array(self._options.get("deviation", DEVIATION), np.float32)
        return np.ascontiguousarray(((cut - mean) / deviation).transpose(2, 0, 1))

    def _tokens(self, sentences: Sequence[str]) -> NDArray[np.int64]:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingTokenizers() from None
        length = int(self._options.get("tokens", 77))
        tokenizer = Tokenizer.from_str(Path(self._loader.path(self._entry.parts["tokenizer"])).read_text("utf-8"))
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(length=length, pad_id=int(self._options.get("padding", 49407)))
        return np.array([encoding.ids for encoding in tokenizer.encode_batch(list(sentences))], np.int64)


def _embeddings(outputs: dict[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    """The output of that name, else the first one."""
    return np.asarray(outputs.get(name, next(iter(outputs.values()))), dtype=np.float32)


class ClipEmbedder:
    """Embeds pictures with CLIP's image encoder; no regions."""

    def __init__(self, entry: Entry, loader: Loader) -> None:
        self._clip = Clip(entry, loader)

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        return [_whole(vector) for vector in self._clip.look(images)]

    def embed_pictures(self, pictures: Sequence[Pixels]) -> list[Embedding]:
        return [_whole(vector) for vector in self._clip.images(pictures)]


def _whole(vector: NDArray[np.float32]) -> Embedding:
    return Embedding(vector, np.zeros((0, len(vector)), np.float32))

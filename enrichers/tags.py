"""Tags: what ImageNet's classes say the picture shows, and the general words above them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from enrichers.contract import Enricher, Failure, Form, Loader, Result, Weights
from enrichers.efficientnet import MODEL, SIDE, EfficientNet
from enrichers.image import Image


@dataclass(frozen=True)
class Vocabulary:
    """Words and the classes that each stands for: a class's own name, and the names of what is above it in WordNet."""

    labels: Mapping[str, tuple[int, ...]]
    hypernyms: Mapping[str, tuple[int, ...]]

    @classmethod
    def load(cls) -> "Vocabulary":
        """ImageNet's, from `imagenet.tsv`: a line a class with name, WordNet id and hypernyms, nearest first."""
        labels: dict[str, list[int]] = {}
        hypernyms: dict[str, list[int]] = {}
        text = resources.files("enrichers").joinpath("imagenet.tsv").read_text("utf-8")
        for number, line in enumerate(text.splitlines()):
            name, _, above = line.split("\t")
            labels.setdefault(name, []).append(number)
            for word in filter(None, above.split("|")):
                hypernyms.setdefault(word, []).append(number)
        return cls(_frozen(labels), _frozen(hypernyms))


def _frozen(words: Mapping[str, list[int]]) -> dict[str, tuple[int, ...]]:
    return {word: tuple(classes) for word, classes in words.items()}


class Tags(Enricher):
    """ImageNet's 1000 classes by EfficientNet-lite3. A label's score is the softmax of its class, a hypernym's the sum
    over the classes below it; both in 0 to 1."""

    name = "tags"
    version = 1
    libraries: ClassVar[tuple[str, ...]] = ("ai-edge-litert", "opencv-python-headless")
    shares = MODEL
    defaults: ClassVar[Mapping[str, Any]] = {"min_score": 0.1, "max_items": 10}

    @property
    def form(self) -> Form:
        return Form(max_side=2 * SIDE)

    @property
    def max_batch(self) -> int:
        return 8

    def weights(self) -> tuple[Weights, ...]:
        return self.catalogue.weights(MODEL)

    def load(self, loader: Loader) -> None:
        self._network = EfficientNet(loader)
        self._vocabulary = Vocabulary.load()

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        return [Result(self.answer(softmax(seen.logits))) for seen in self._network.look(images)]

    def answer(self, probabilities: NDArray[np.float32]) -> dict[str, Any]:
        """`probabilities`: (1000,), sum 1."""
        labels = self._likely(self._vocabulary.labels, probabilities)
        hypernyms = self._likely(self._vocabulary.hypernyms, probabilities)
        kept = labels[: self.settings["max_items"]]
        answer: dict[str, Any] = {
            "labels": [word for word, _ in kept],
            "items": [{"label": word, "score": round(score, 4)} for word, score in kept],
            "hypernyms": [word for word, _ in hypernyms],
        }
        if len(labels) > len(kept):
            answer["cut"] = len(labels) - len(kept)
        return answer

    def _likely(
        self, words: Mapping[str, Iterable[int]], probabilities: NDArray[np.float32]
    ) -> list[tuple[str, float]]:
        scores = ((word, float(probabilities[list(classes)].sum())) for word, classes in words.items())
        likely = [(word, min(score, 1.0)) for word, score in scores if score >= self.settings["min_score"]]
        return sorted(likely, key=lambda pair: -pair[1])


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True), dtype=np.float32)

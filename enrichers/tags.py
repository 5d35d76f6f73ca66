"""Tags: what ImageNet's classes say the picture shows, and the general words above them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from enrichers.clip import Clip
from enrichers.contract import Enricher, Failure, Form, Loader, Result, Weights
from enrichers.efficientnet import MODEL, SIDE, EfficientNet
from enrichers.errors import SettingInvalid
from enrichers.image import Image


@dataclass(frozen=True)
class Vocabulary:
    """Words and the classes that each stands for: a class's own name, and the names of what is above it in WordNet."""

    classes: tuple[str, ...]  #: names, in the order of the classes; one name may stand for several
    labels: Mapping[str, tuple[int, ...]]
    hypernyms: Mapping[str, tuple[int, ...]]

    @classmethod
    def load(cls) -> "Vocabulary":
        """ImageNet's, from `imagenet.tsv`: a line a class with name, WordNet id and hypernyms, nearest first."""
        text = resources.files("enrichers").joinpath("imagenet.tsv").read_text("utf-8")
        rows = [line.split("\t") for line in text.splitlines()]
        hypernyms: dict[str, list[int]] = {}
        for number, (_, _, above) in enumerate(rows):
            for word in filter(None, above.split("|")):
                hypernyms.setdefault(word, []).append(number)
        names = [name for name, _, _ in rows]
        return cls(tuple(names), _places(names), {word: tuple(classes) for word, classes in hypernyms.items()})

    @classmethod
    def of(cls, words: Sequence[str]) -> "Vocabulary":
        """A user's own words, each a class; nothing is above them."""
        return cls(tuple(words), _places(words), {})


def _places(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        places.setdefault(name, []).append(number)
    return {name: tuple(numbers) for name, numbers in places.items()}


class Classifier(Protocol):
    """Says how likely each class of a vocabulary is, (n,) with sum 1, for each image of a batch."""

    def classify(self, images: Sequence[Image]) -> list[NDArray[np.float32]]: ...


class ImageNetClassifier:
    """EfficientNet-lite3's own 1000 classes."""

    def __init__(self, loader: Loader) -> None:
        self._network = EfficientNet(loader)

    def classify(self, images: Sequence[Image]) -> list[NDArray[np.float32]]:
        return [softmax(seen.logits) for seen in self._network.look(images)]


class ZeroShotClassifier:
    """Any words, by how near CLIP puts the sentence that each makes to the picture."""

    def __init__(self, clip: Clip, words: Sequence[str]) -> None:
        self._clip = clip
        self._texts = clip.texts([f"a photo of a {word}." for word in words])

    def classify(self, images: Sequence[Image]) -> list[NDArray[np.float32]]:
        return [self._clip.probabilities(vector, self._texts) for vector in self._clip.look(images)]


class Tags(Enricher):
    """ImageNet's 1000 classes by EfficientNet-lite3, or, with a CLIP as `model`, these or the user's own `words`. A
    label's score is the softmax of its class, a hypernym's the sum over the classes below it; both in 0 to 1."""

    name = "tags"
    version = 1
    libraries: ClassVar[tuple[str, ...]] = ("ai-edge-litert", "opencv-python-headless")
    shares = MODEL
    defaults: ClassVar[Mapping[str, Any]] = {"model": MODEL, "words": (), "min_score": 0.1, "max_items": 10}

    @property
    def form(self) -> Form:
        return Form(max_side=2 * SIDE)

    @property
    def max_batch(self) -> int:
        return 8

    def weights(self) -> tuple[Weights, ...]:
        return self.catalogue.weights(self.settings["model"])

    def load(self, loader: Loader) -> None:
        entry = self.catalogue.entry(self.settings["model"])
        words = self.settings["words"]
        if words and entry.name == MODEL:
            raise SettingInvalid(f"enrichers.tags.words needs a CLIP as enrichers.tags.model; {MODEL} has its own")
        self._vocabulary = Vocabulary.of(words) if words else Vocabulary.load()
        if entry.name == MODEL:
            self._classifier: Classifier = ImageNetClassifier(loader)
        else:
            self._classifier = ZeroShotClassifier(Clip(entry, loader), self._vocabulary.classes)

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        return [Result(self.answer(probabilities)) for probabilities in self._classifier.classify(images)]

    def answer(self, probabilities: NDArray[np.float32]) -> dict[str, Any]:
        """`probabilities`: of the vocabulary's classes, sum 1."""
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

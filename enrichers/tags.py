"""Tags: what ImageNet's classes say the picture shows, and the general words above them."""

from collections.abc import Mapping, Sequence
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


class Words:
    """Words, each of which stands for some classes."""

    def __init__(self, classes: Mapping[str, Sequence[int]]) -> None:
        self.classes = classes
        self._names = list(classes)
        self._words = np.repeat(np.arange(len(classes)), [len(numbers) for numbers in classes.values()])
        self._numbers = np.array([number for numbers in classes.values() for number in numbers], np.int64)

    def likely(self, probabilities: NDArray[np.float32], least: float) -> list[tuple[str, float]]:
        """The words whose classes together are as likely as `least`, with how likely that is, best first."""
        scores = np.bincount(self._words, probabilities[self._numbers], len(self._names))
        chosen = [number for number in np.argsort(-scores, kind="stable") if scores[number] >= least]
        return [(self._names[number], min(float(scores[number]), 1.0)) for number in chosen]


@dataclass(frozen=True)
class Vocabulary:
    """Words and the classes that each stands for: a class's own name, and the names of what is above it in WordNet."""

    classes: tuple[str, ...]  #: names, in the order of the classes; one name may stand for several
    labels: "Words"
    hypernyms: "Words"

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
        return cls(tuple(names), Words(_places(names)), Words(hypernyms))

    @classmethod
    def of(cls, words: Sequence[str]) -> "Vocabulary":
        """A user's own words, each a class; nothing is above them."""
        return cls(tuple(words), Words(_places(words)), Words({}))


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        places.setdefault(name, []).append(number)
    return places


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
        least = self.settings["min_score"]
        labels = self._vocabulary.labels.likely(probabilities, least)
        hypernyms = self._vocabulary.hypernyms.likely(probabilities, least)
        kept = labels[: self.settings["max_items"]]
        answer: dict[str, Any] = {
            "labels": [word for word, _ in kept],
            "items": [{"label": word, "score": round(score, 4)} for word, score in kept],
            "hypernyms": [word for word, _ in hypernyms],
        }
        if len(labels) > len(kept):
            answer["cut"] = len(labels) - len(kept)
        return answer


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True), dtype=np.float32)

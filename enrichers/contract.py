"""What an enricher is: the contract between the daemon and everything that finds something out about an image."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from enrichers.errors import EnrichdError
from enrichers.image import Box, Image

if TYPE_CHECKING:
    from enrichers.catalogue import Catalogue

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Form:
    """How an enricher wants the picture: `max_side` is the longest side in pixels that it has a use for
    (None: all there is). An image is decoded once, at the largest size that any of its enrichers has a use for."""

    max_side: int | None = None


@dataclass(frozen=True)
class Face:
    """One face found in an image, in pixels of the upright file."""

    box: Box  #: x, y, width, height
    landmarks: tuple[tuple[float, float], ...]  #: left eye, right eye, nose, left and right mouth corner (as seen)
    score: float
    quality: Mapping[str, Any]  #: sharpness, size (shorter side in pixels), pose, value
    embeddings: Mapping[str, Vector]  #: embedding model's name → vector, shape (d,), as the model gives it
    thumbnail: bytes  #: a small JPEG
    attributes: Mapping[str, Any] = field(default_factory=dict)  #: age, gender, emotion


@dataclass(frozen=True)
class Result:
    """An enricher's answer for one image: what goes under `enrichments.<name>`, in plain types (a 1-d float32
    array becomes a BSON vector). Only the faces enricher fills `faces`; the store makes its `items` from them."""

    answer: Mapping[str, Any]
    faces: tuple[Face, ...] = ()

    def required(self) -> Mapping[str, Any]:
        """The answer as enrichers that require it see it: with the faces' boxes, as the document will have them."""
        if not self.faces:
            return self.answer
        items = [{"box": list(f.box), "score": f.score, "quality": f.quality, **f.attributes} for f in self.faces]
        return {**self.answer, "items": items}


@dataclass(frozen=True)
class Failure:
    """Why an enricher has no answer for one image. `transient`: the same call may succeed later."""

    type: str
    message: str
    transient: bool = False

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """The failure that an exception stands for; only enrichd's own errors know whether they are transient."""
        transient = error.transient if isinstance(error, EnrichdError) else isinstance(error, (MemoryError, OSError))
        return cls(type(error).__name__, str(error) or type(error).__name__, transient)


@dataclass(frozen=True, slots=True)
class Weights:
    """One weight file that an enricher uses: a catalogue name and the SHA-256 of the file."""

    name: str
    sha256: str


class Network(Protocol):
    """A loaded graph. `run` takes named arrays and returns the named outputs; the first axis is the batch."""

    @property
    def inputs(self) -> Sequence[str]:
        """The names that `run` takes."""
        ...

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]: ...


class Loader(Protocol):
    """Gives enrichers their loaded networks; one network is loaded once a process, whoever asks."""

    device: str  #: "cpu" or "cuda"
    threads: int  #: threads a runtime may use for one call

    def network(self, name: str) -> Network:
        """The catalogue's model `name`, loaded. Raises ModelMissing, ModelCorrupt, ModelUnknown, DeviceUnavailable."""
        ...

    def path(self, name: str) -> str:
        """The weight file of the catalogue's model `name`, for enrichers that load it by other means."""
        ...


class Enricher(ABC):
    """Turns batches of decoded images into answers.

    An instance is made in the daemon's own process to be asked for its fingerprint, and in an inference worker to
    do the work; only `load` may import a runtime or read weights. `enrich` is called from one thread at a time unless
    the class says that it is `concurrent`; networks are safe to run from several.
    """

    name: ClassVar[str]
    version: ClassVar[int]  #: raised when the code's answers change
    requires: ClassVar[tuple[str, ...]] = ()  #: enrichers whose answers it reads from `Image.results`
    libraries: ClassVar[tuple[str, ...]] = ()  #: distributions whose version changes the answers
    concurrent: ClassVar[bool] = False  # whether `enrich` may be called from several threads at once
    shares: ClassVar[str | None] = None  #: enrichers with the same value are run on the same batch, one after another
    defaults: ClassVar[Mapping[str, Any]] = {}  #: settings and their default values; no others are accepted

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """`settings`: this enricher's table of the configuration, already checked and filled from `defaults`."""
        self.settings = settings
        self._catalogue: Catalogue | None = None

    @property
    def catalogue(self) -> "Catalogue":
        """Where models are looked up: with the user's own entries where the registry made this enricher."""
        if self._catalogue is None:
            from enrichers.catalogue import Catalogue

            self._catalogue = Catalogue.load()
        return self._catalogue

    @catalogue.setter
    def catalogue(self, catalogue: "Catalogue") -> None:
        self._catalogue = catalogue

    @property
    def form(self) -> Form:
        return Form()

    @property
    def max_batch(self) -> int:
        return 8

    @property
    def model(self) -> str | None:
        """The name of the model, for the result's provenance."""
        weights = self.weights()
        return weights[0].name if weights else None

    def weights(self) -> tuple[Weights, ...]:
        """The weight files it needs under its settings, main one first."""
        return ()

    def versions(self) -> Mapping[str, str]:
        """The version of each library, and of each program, that changes the answers."""
        return {library: metadata.version(library) for library in self.libraries}

    def fingerprint(self, required: Mapping[str, str]) -> str:
        """What identifies this enricher's answers: 16 hex digits of a SHA-256 over name, version, weights, settings,
        library versions and the fingerprints of what it requires."""
        parts = {
            "name": self.name,
            "version": self.version,
            "weights": [w.sha256 for w in self.weights()],
            "settings": {key: self.settings[key] for key in sorted(self.settings)},
            "libraries": dict(self.versions()),
            "requires": {name: required[name] for name in self.requires},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @abstractmethod
    def load(self, loader: Loader) -> None:
        """Loads the networks; called once, in the inference worker, before the first batch."""

    @abstractmethod
    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        """One result or failure for each image, in the same order. An exception fails the batch: the daemon then
        tries its images one by one."""

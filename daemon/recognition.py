"""Recognition of people by a classifier that learned from labelled faces: training, judging, and saying who it is."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.errors import EnrichdError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: share of the answers given that should be right; what is less sure is rejected
PRECISION = 0.99
#: share of each label's photos that is held back to judge by
TEST_SHARE = 0.3
#: what a recognizer tells if nothing else is asked for: who it is
IDENTITY = "identity"
#: labels from which on one can be spared to see how strangers are taken; with fewer people nobody is ever accepted
SPARE_FROM = 3
#: a threshold that no confidence reaches
NEVER = 1.01
#: a margin larger than this says no more; where a label was never seen, its score is far below all others
MOST_MARGIN = 4.0
#: weight of errors in the support vector machine, and folds that its confidence is calibrated on
PENALTY, FOLDS = 10.0, 4


class TooFewLabels(EnrichdError):
    """Training takes at least two labels with enough faces each."""


@dataclass(frozen=True)
class Recognizer:
    """A linear support vector machine, one against the rest, with a confidence: plain arrays, so that it can be stored
    without pickle."""

    model: str  #: embedding model
    label: str  #: what it tells: "identity" or a field of the identity
    names: tuple[str, ...]  #: labels; for "identity" the ids
    weights: Floats  #: (labels, d)
    constants: Floats  #: (labels,)
    slope: float  #: of the logistic function of the margin between the best and the second label
    offset: float
    threshold: float  #: confidence below which the answer is "none of them, or not sure"

    def tell(self, vectors: Floats) -> tuple[Ints, Floats]:
        """(n, d) unit vectors → the best label of each and the confidence that it is right, (n,) each."""
        scores = vectors @ self.weights.T + self.constants
        order = np.argsort(-scores, axis=1)
        rows = np.arange(len(scores))
        best, second = scores[rows, order[:, 0]], scores[rows, order[:, 1]]
        return order[:, 0].astype(np.int64), self.confidence(best, np.minimum(best - second, MOST_MARGIN))

    def confidence(self, best: Floats, margin: Floats) -> Floats:
        """Of the best label's score and its distance to the second's."""
        value = self.slope * (best + margin) + self.offset
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(value, -50, 50))), dtype=np.float32)

    def document(self) -> dict[str, Any]:
        """As plain types, arrays as base64 of little-endian float32."""
        arrays = {"weights": self.weights, "constants": self.constants}
        packed = {name: base64.b64encode(array.astype("<f4").tobytes()).decode() for name, array in arrays.items()}
        plain = {key: getattr(self, key) for key in ("model", "label", "slope", "offset", "threshold")}
        return {**plain, "names": list(self.names), "dimensions": int(self.weights.shape[1]), **packed}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Recognizer":
        """What `document` gave."""
        arrays = {name: np.frombuffer(base64.b64decode(document[name]), "<f4") for name in ("weights", "constants")}
        return cls(
            model=document["model"],
            label=document["label"],
            names=tuple(document["names"]),
            weights=arrays["weights"].reshape(-1, document["dimensions"]).astype(np.float32),
            constants=arrays["constants"].astype(np.float32),
            slope=document["slope"],
            offset=document["offset"],
            threshold=document["threshold"],
        )


@dataclass(frozen=True)
class Judged:
    """How a recognizer does on photos that it did not see, and what a nearest centroid does there."""

    accuracy: float  #: of the best label, nothing rejected
    nearest_centroid: float
    rejected: float  #: share of the faces below the threshold
    accuracy_accepted: float  #: of those above it
    train: int
    test: int
    confusion: dict[tuple[str, str], int]  #: (true, told) → how often, only where they differ


def disjoint_split(labels: Ints, photos: Ints, seed: int, share: float = TEST_SHARE) -> NDArray[np.bool_]:
    """Which faces (n,) are held back for the test: of every label the same share of its photos, at least one, and never
    a photo whose twin is trained on."""
    rng = np.random.default_rng(seed)
    test = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        own = np.unique(photos[labels == label])
        held = rng.permutation(own)[: max(1, round(share * len(own)))]
        test |= (labels == label) & np.isin(photos, held)
    return test


def train(
    model: str, label: str, names: Sequence[str], vectors: Floats, labels: Ints, photos: Ints, seed: int = 0
) -> Recognizer:
    """(n, d) unit vectors, (n,) labels that count into `names` → a recognizer. Its confidence is calibrated on faces
    that the machine did not see (cross-validation), of people that it knows and of people that it does not.
    Raises TooFewLabels."""
    from sklearn.linear_model import LogisticRegression

    if len(names) < 2:
        raise TooFewLabels
    best, margin, right = unseen(vectors, labels, photos, len(names), label == IDENTITY, seed)
    value = best + margin
    slope, offset = 1.0, 0.0  # where all answers were right, or all wrong, confidence is an order and no more
    if 0 < right.sum() < len(right):
        logistic = LogisticRegression(C=100.0).fit(value[:, None], right)
        slope, offset = float(logistic.coef_[0, 0]), float(logistic.intercept_[0])
    confidence = 1.0 / (1.0 + np.exp(-np.clip(slope * value + offset, -50, 50)))
    unspared = label == IDENTITY and len(names) < SPARE_FROM
    threshold = NEVER if unspared else threshold_for(confidence, right, PRECISION)
    weights, constants = machine(vectors, labels, len(names))
    return Recognizer(model, label, tuple(names), weights, constants, slope, offset, threshold)


def machine(vectors: Floats, labels: Ints, count: int) -> tuple[Floats, Floats]:
    """A linear support vector machine for each label against the rest: (count, d) weights, (count,) constants. Labels
    without a face can never be told."""
    from sklearn.svm import LinearSVC

    weights = np.zeros((count, vectors.shape[1]), dtype=np.float32)
    constants = np.full(count, -1e6, dtype=np.float32)
    centre = vectors.mean(axis=0)
    for label in np.unique(labels):
        fitted = LinearSVC(C=PENALTY, class_weight="balanced", max_iter=20_000, random_state=0)
        fitted.fit((vectors - centre) * SCALE, labels == label)
        weights[label] = fitted.coef_[0] * SCALE
        constants[label] = fitted.intercept_[0] - float(weights[label] @ centre)
    return weights, constants


#: face vectors lie close together: spread by this, the machine's penalty acts as on data of unit variance
SCALE = 4.0


def unseen(
    vectors: Floats, labels: Ints, photos: Ints, count: int, open_set: bool, seed: int
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Best score, margin to the second, and whether the best is right, for faces that the machine did not see. In each
    fold some photos of every label are held back, and in an `open_set` (people, of whom there are always others) all of
    some labels: those come as strangers, of whom no answer is right."""
    rng = np.random.default_rng(seed)
    order = {photo: place for place, photo in enumerate(rng.permutation(np.unique(photos)))}
    fold = np.array([order[photo] % FOLDS for photo in photos])
    spared = open_set and count >= SPARE_FROM
    place = rng.permutation(count) % FOLDS if spared else np.full(count, -1)
    found: list[tuple[Floats, Floats, NDArray[np.bool_]]] = []
    for number in range(FOLDS):
        stranger = place[labels] == number
        held = (fold == number) | stranger
        if not held.any() or len(np.unique(labels[~held])) < 2:
            continue
        weights, constants = machine(vectors[~held], labels[~held], count)
        scores = vectors[held] @ weights.T + constants
        found.append((*two_best(scores), scores.argmax(axis=1) == labels[held]))
    if not found:
        raise TooFewLabels
    best, margin, right = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return best, np.minimum(margin, MOST_MARGIN), right


def two_best(scores: Floats) -> tuple[Floats, Floats]:
    """The best score of each row, and by how much it is better than the second."""
    ordered = np.sort(scores, axis=1)
    return ordered[:, -1], ordered[:, -1] - ordered[:, -2]


def threshold_for(confidence: Floats, right: NDArray[np.bool_], precision: float) -> float:
    """The lowest confidence from which answers are right as often as `precision`; NEVER where there is none."""
    order = np.argsort(-confidence, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(share >= precision)
    return float(confidence[order[good[-1]]]) if len(good) else NEVER


def judge(recognizer: Recognizer, trained: tuple[Floats, Ints], tested: tuple[Floats, Ints]) -> Judged:
    """Tests a recognizer, and a nearest centroid of the faces that it was trained on, on other faces."""
    vectors, labels = tested
    told, confidence = recognizer.tell(vectors)
    known = np.unique(trained[1])
    means = np.stack([trained[0][trained[1] == label].mean(axis=0) for label in known])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    nearest = known[(vectors @ means.T).argmax(axis=1)]
    accepted = confidence >= recognizer.threshold
    confusion: dict[tuple[str, str], int] = {}
    for true, answer in zip(labels[told != labels], told[told != labels], strict=True):
        key = (recognizer.names[true], recognizer.names[answer])
        confusion[key] = confusion.get(key, 0) + 1
    return Judged(
        accuracy=float((told == labels).mean()),
        nearest_centroid=float((nearest == labels).mean()),
        rejected=float(1.0 - accepted.mean()),
        accuracy_accepted=float((told == labels)[accepted].mean()) if accepted.any() else 0.0,
        train=len(trained[1]),
        test=len(labels),
        confusion=confusion,
    )

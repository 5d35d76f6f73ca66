"""Photos as their captions tell of them: the things that a detector would have found, simulated, and the sentences."""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.evaluate.caption_scores import tokenize
from enrichers.caption_evidence import LABELS, NAMES, PEOPLE, Thing
from enrichers.caption_words import Noun, load_words

WORDS = load_words()

#: nouns whose ring fits several labels, or none, and the label that a photo with that word most likely shows
LABEL_OF: Mapping[str, str | None] = {
    "glass": "cup",
    "bag": "handbag",
    "bike": "bicycle",
    "scooter": "motorcycle",
    "coach": "bus",
    "engine": None,
    "decker": "bus",
    "subway": "train",
    "trailer": "truck",
    "computer": "laptop",
    "desk": "dining table",
    "counter": None,
    "table": "dining table",
    "bear": "bear",
    "brush": None,
    "phone": "cell phone",
    "telephone": None,
    "watch": None,
    "pot": None,
    "jar": None,
    "pitcher": "person",
    "plant": "potted plant",
    "range": None,
    "control": None,
    "controller": "remote",
    "dish": "bowl",
    "bat": "baseball bat",
    "board": None,
    "disc": "frisbee",
    "screen": "tv",
    "monitor": "tv",
    "display": None,
    "signal": None,
    "street light": None,
    "light": None,
    "meter": None,
    "ball": "sports ball",
    "tennis ball": "sports ball",
    "soccer ball": "sports ball",
    "pie": "pizza",
    "bath": None,
    "toy": None,
    "stuffed animal": "teddy bear",
    "stool": "chair",
    "glove": "baseball glove",
    "wrap": "sandwich",
    "sub": "sandwich",
    "roll": None,
    "pen": None,
    "basin": "sink",
    "faucet": None,
    "pet": None,
    "fan": None,
    "cook": "person",
    "tablet": None,
}
#: things that are small in most photos, however often people name them
SMALL = frozenset(
    {
        "frisbee",
        "sports ball",
        "kite",
        "baseball bat",
        "baseball glove",
        "tennis racket",
        "tie",
        "fork",
        "knife",
        "spoon",
        "toothbrush",
        "remote",
        "mouse",
        "cell phone",
        "skis",
        "skateboard",
        "bottle",
        "cup",
        "wine glass",
        "handbag",
        "backpack",
        "book",
        "clock",
        "traffic light",
        "bird",
    }
)
#: how often a detector sees a thing that nobody names (share of photos), before what else is there is considered
UNNAMED = {
    "person": 0.15, "chair": 0.10, "car": 0.08, "bottle": 0.05, "cup": 0.06, "bowl": 0.05, "dining table": 0.08,
    "book": 0.04, "potted plant": 0.05, "handbag": 0.05, "backpack": 0.04, "tv": 0.03, "traffic light": 0.02,
    "bench": 0.03, "couch": 0.03, "truck": 0.03, "clock": 0.02, "bird": 0.01, "cell phone": 0.02, "sink": 0.02,
    "knife": 0.02, "fork": 0.02, "spoon": 0.02, "vase": 0.02, "sports ball": 0.02, "boat": 0.02, "wine glass": 0.01,
    "umbrella": 0.01, "tie": 0.02, "bicycle": 0.01, "motorcycle": 0.01, "baseball glove": 0.01, "oven": 0.01,
    "bus": 0.01, "dog": 0.01, "cat": 0.01, "suitcase": 0.01, "laptop": 0.01, "keyboard": 0.01, "mouse": 0.01,
}  # fmt: skip
#: what a detector takes one thing for
MISTAKEN = {
    "cow": "horse", "horse": "cow", "sheep": "dog", "dog": "cat", "cat": "dog", "bus": "truck", "truck": "car",
    "train": "bus", "chair": "couch", "couch": "chair", "donut": "cake", "sandwich": "hot dog", "hot dog": "sandwich",
    "orange": "apple", "snowboard": "skis", "surfboard": "boat", "bicycle": "motorcycle", "zebra": "horse",
    "skateboard": "surfboard", "cup": "bowl", "microwave": "oven", "laptop": "tv",
}  # fmt: skip

_NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "couple": 2, "pair": 2, "both": 2}
_MANY = {"several", "many", "group", "bunch", "herd", "flock", "row", "rows", "lots", "multiple", "various", "crowd"}


def label_of(noun: str) -> str | None:
    """The COCO label that a detector would give to what a caption calls so."""
    if noun in LABEL_OF:
        return LABEL_OF[noun]
    concepts = WORDS.known([noun])
    if "person" in concepts:
        return "person"
    aliases = {"ball": "sports ball"}
    labels = [aliases.get(c, c) for c in WORDS.concepts(noun) if aliases.get(c, c) in LABELS]
    return labels[0] if len(labels) == 1 else None


@dataclass(frozen=True)
class Sentence:
    """One caption: its tokens, names of several words as one, and its nouns by their place among these."""

    tokens: tuple[str, ...]  #: as coco-caption tokenises
    units: tuple[str, ...]  #: the same with each noun as one unit ("fire hydrants")
    nouns: Mapping[int, str]  #: place of a unit → the noun in the singular


@dataclass(frozen=True)
class Photo:
    """A photo known by its captions: what they name, how often and how many."""

    sentences: tuple[Sentence, ...]
    named: Mapping[str, float]  #: name of NAMES → share of the captions that name it
    counts: Mapping[str, int]
    nouns: frozenset[str]  #: every noun of every caption


def _count(tokens: Sequence[str], noun: Noun) -> int:
    before = tokens[max(0, noun.start - 4) : noun.start]
    for token in reversed(before):
        if token in _NUMBERS:
            return _NUMBERS[token]
        if token in _MANY:
            return 4
        if token in ("a", "an", "one"):
            break
    last = tokens[noun.end - 1]
    is_plural = last != noun.name.split(" ")[-1] or last in ("people", "men", "women", "children")
    return 3 if is_plural and last != "skis" else 1


def sentence(text: str) -> Sentence:
    """A caption, tokenised, its nouns found."""
    tokens = tokenize(text)
    nouns = WORDS.nouns(tokens)
    units: list[str] = []
    places: dict[int, str] = {}
    at = 0
    for noun in nouns:
        units.extend(tokens[at : noun.start])
        places[len(units)] = noun.name
        units.append(" ".join(tokens[noun.start : noun.end]))
        at = noun.end
    units.extend(tokens[at:])
    return Sentence(tuple(tokens), tuple(units), places)


def photo(captions: Sequence[str]) -> Photo:
    """A photo from its captions."""
    sentences = tuple(sentence(text) for text in captions)
    named: Counter[str] = Counter()
    counts: dict[str, list[int]] = {}
    for one in sentences:
        here: Counter[str] = Counter()
        for noun in WORDS.nouns(one.tokens):
            count = _count(one.tokens, noun)
            names = {label_of(noun.name)} | ({noun.name} & set(NAMES))
            names |= {kind for kind in PEOPLE if kind in WORDS.concepts(noun.name)}
            for name in sorted(name for name in names if name):  # a set's own order differs from run to run
                here[name] += count
        for name, count in here.items():
            named[name] += 1
            counts.setdefault(name, []).append(count)
    return Photo(
        sentences,
        {name: n / len(sentences) for name, n in named.items()},
        {name: max(values) for name, values in counts.items()},
        frozenset(noun for one in sentences for noun in one.nouns.values()),
    )


def read(path: Path) -> list[Photo]:
    """The photos of `captions.json`: photo → its captions."""
    with path.open(encoding="utf-8") as file:
        return [photo(captions) for captions in json.load(file).values()]


class Detector:
    """Simulates what detector, classifier and faces would find in photos that are known by their captions."""

    def __init__(self, photos: Sequence[Photo]) -> None:
        count = len(photos)
        self._share = {name: sum(name in p.named for p in photos) / count for name in LABELS}
        pairs: Counter[tuple[str, str]] = Counter()
        for p in photos:
            labels = [name for name in p.named if name in self._share]
            pairs.update((a, b) for a in labels for b in labels if a != b)
        self._pairs = {pair: n / count for pair, n in pairs.items()}

    def lift(self, there: str, other: str) -> float:
        """How much likelier `other` is where `there` is; 1 where nothing is known."""
        expected = self._share.get(there, 0.0) * self._share.get(other, 0.0)
        return (self._pairs.get((there, other), 0.0) + 0.002) / (expected + 0.002)

    def find(self, p: Photo, rng: random.Random) -> list[Thing]:
        """The things found in a photo, in no order."""
        found: dict[str, Thing] = {}
        knows_faces = rng.random() < 0.4
        knows_classes = rng.random() < 0.4
        for name, share in p.named.items():
            small = name in SMALL
            if name in PEOPLE:
                seen = knows_faces and rng.random() < 0.5 + 0.4 * share
            elif name in self._share:
                seen = rng.random() < (0.55 if small else 0.75) + 0.2 * share
            else:
                seen = knows_classes and rng.random() < 0.3 + 0.5 * share
            if not seen:
                continue
            if small:
                prominence = rng.choices((0, 1, 2), (5, 4, 1))[0]
            else:
                prominence = rng.choices((0, 1, 2), (1 - share * 0.9, 1.0, 4 * share))[0]
            count = p.counts[name]
            if count >= 3:
                count = rng.choice((2, 3, 4, 5, 7))
            elif name == "person" and rng.random() < 0.25:
                count += rng.choice((1, 1, 2, 4))
            elif rng.random() < 0.12:
                count += 1
            label = MISTAKEN.get(name, name) if rng.random() < 0.03 else name
            found[label] = Thing(label, count, prominence, "objects")
        if "person" not in found and any(name in found for name in PEOPLE):
            found["person"] = Thing("person", max(found[n].count for n in PEOPLE if n in found), 1, "objects")
        there = list(found)
        for name, share in UNNAMED.items():
            if name in found:
                continue
            lift = max((self.lift(other, name) for other in there), default=1.0)
            if rng.random() < share * min(4.0, max(0.2, lift)):
                found[name] = Thing(
                    name, rng.choice((1, 1, 1, 2, 3, 5)), rng.choices((0, 1, 2), (6, 3, 1))[0], "objects"
                )
        things = list(found.values())
        rng.shuffle(things)
        return things

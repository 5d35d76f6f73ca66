"""Attributes: general things about the whole picture, each a value and how sure it is."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np

from enrichers import appearance, saliency
from enrichers.appearance import Texture, likely
from enrichers.contract import Enricher, Failure, Form, Loader, Result
from enrichers.image import Facts, Image, Pixels
from enrichers.place import PlaceWords, exposed_outdoors, exposure_value
from enrichers.properties import camera
from enrichers.saliency import FACES, OBJECTS, PEOPLE, Weighted, Window

#: people from whom on a group is a crowd
CROWD = 8

#: share of the picture's height that a face has in a portrait, or of its area that a person has
PORTRAIT_FACE, PORTRAIT_PERSON = 0.15, 0.25

#: how many times larger than any other the face of a portrait is
STANDS_OUT = 4.0

#: formats (width / height) for which a crop is proposed
CROPS: Mapping[str, float] = {"1:1": 1.0, "4:3": 4 / 3, "3:4": 3 / 4, "16:9": 16 / 9}

#: width / height within which a picture is square
SQUARE = 1.05

#: log odds below which nothing is said about the place
TOLD = 0.3

#: grey level (0 to 1) that half of a picture taken by night is below, and how sharp that limit is
NIGHT, NIGHT_WIDTH = 0.22, 0.04

#: exposure values of the night: street lights 4, a full moon −3
NIGHT_EXPOSURE = 6.0

Items = Sequence[Mapping[str, Any]]


class Attributes(Enricher):
    """What the other enrichers found, and the pixels, summed up; no network of its own."""

    name = "attributes"
    version = 1
    requires: ClassVar[tuple[str, ...]] = ("objects", "faces", "text", "tags")
    libraries: ClassVar[tuple[str, ...]] = ("opencv-python-headless",)

    @property
    def form(self) -> Form:
        return Form(max_side=appearance.FINE_SIDE)

    def load(self, loader: Loader) -> None:
        self._words = PlaceWords.load()

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        return [Result(self.answer(image)) for image in images]

    def answer(self, image: Image) -> dict[str, Any]:
        small = image.fitted(appearance.SIDE)
        found, faces = _items(image, "objects"), _items(image, "faces")
        lines = image.results["text"].get("lines", ())
        shot_with = camera(image.facts.exif)
        light = exposure_value(shot_with)
        kind, kind_score = self._kind(image, lines, shot_with is not None)
        people = [item for item in found if item["label"] == "person"]
        answer: dict[str, Any] = {
            "kind": _told(kind, kind_score),
            "place": None,
            "daylight": None,
            "people": _told(*counted(people, faces)),
            "shot": _told(*shot(people, faces, image)),
            **appearances(small, image.fitted(appearance.COLOUR_SIDE)),
            "has_text": _told(*has_text(lines)),
            "orientation": _told(orientation(image.width, image.height), 1.0),
        }
        if kind == "photo":
            outdoors = self._words.outdoors(
                {item["label"]: item["score"] for item in image.results["tags"]["items"]},
                {item["label"] for item in found},
            )
            answer["place"] = place(outdoors + (exposed_outdoors(light) if light is not None else 0.0))
            inside = answer["place"] is not None and answer["place"]["value"] == "indoor"
            answer["daylight"] = None if inside else daylight(small, light)
        weight = saliency.weights(small, _places(image, people, faces, found))
        answer["focus"] = _box(image, saliency.focus(weight))
        form = image.width / image.height
        answer["crops"] = {
            name.replace(":", "x"): _box(image, saliency.crop(weight, ratio, form)) for name, ratio in CROPS.items()
        }
        return answer

    def _kind(self, image: Image, lines: Items, has_camera: bool) -> tuple[str, float]:
        texture = appearance.texture(image.fitted(appearance.FINE_SIDE))
        covered = sum(line["box"][2] * line["box"][3] for line in lines) / (image.width * image.height)
        scores = kinds(texture, len(lines), covered, has_camera, image.facts)
        best = max(scores, key=lambda name: scores[name])
        return best, scores[best]


def _items(image: Image, name: str) -> Items:
    items: Items = image.results[name].get("items", ())
    return items


def _told(value: Any, score: float) -> dict[str, Any]:
    return {"value": value, "score": round(score, 4)}


def _box(image: Image, window: Window) -> dict[str, Any]:
    box = image.full_box(window.x, window.y, window.width, window.height)
    return {"value": [round(side, 1) for side in box], "score": round(window.kept, 4)}


def _places(image: Image, people: Items, faces: Items, found: Items) -> list[Weighted]:
    """What was found, as places: each kind shares its weight among its members by their score and their size."""
    groups = (
        (FACES, faces),
        (PEOPLE, people),
        (OBJECTS, [item for item in found if item["label"] != "person"]),
    )
    places = []
    for weight, items in groups:
        sizes = [item["score"] * (item["box"][2] * item["box"][3]) ** 0.5 for item in items]
        for item, size in zip(items, sizes, strict=True):
            x, y, width, height = item["box"]
            places.append(
                Weighted(
                    x / image.width,
                    y / image.height,
                    width / image.width,
                    height / image.height,
                    weight * size / max(sum(sizes), 1e-9),
                )
            )
    return places


def kinds(texture: Texture, lines: int, covered: float, has_camera: bool, facts: Facts) -> dict[str, float]:
    """How likely each kind of picture is; sum 1. What a computer drew is flat; text makes it a document or, among
    colours, a screenshot. `covered`: share of the picture that lines of text cover."""
    paper = texture.pale >= 0.4 or (texture.main >= 0.85 and texture.colours < 40)
    drawn = (texture.flat - 0.55) / 0.08 + (1.5 if facts.format in ("PNG", "GIF", "BMP") else 0.0)
    drawn += 2.0 if texture.colours < 20 else 0.0
    drawn += min(lines / 3, 3.0) if paper else min(covered / 0.1, 2.0)
    drawn -= 3.0 if has_camera else 0.0
    graphic = likely(drawn, 1.0)
    text = min(lines / 6, 1.0)
    colourful = min(max((texture.colours - 48) / 32, -1.0), 1.0)
    votes = {
        "document": 5 * text - (0.5 if paper else 3.0) - 1.5 * colourful,
        "screenshot": 3 * text + 1.5 * colourful + (0.5 if facts.format == "PNG" else 0.0) - 0.5,
        "drawing": 1.5 - 3 * text,
    }
    powers = {name: float(np.exp(vote)) for name, vote in votes.items()}
    return {
        "photo": 1 - graphic,
        **{name: graphic * power / sum(powers.values()) for name, power in powers.items()},
    }


def counted(people: Items, faces: Items) -> tuple[int, float]:
    """How many people: as many as there are persons or faces, whatever is more. The score is the mean of theirs, or,
    for none, the chance that there is none where none was found."""
    more = people if len(people) >= len(faces) else faces
    if not more:
        return 0, NOBODY
    return len(more), float(np.mean([item["score"] for item in more]))


#: share of photos without people among those in which none was found (COCO val2017: 48 of 49)
NOBODY = 0.98


def shot(people: Items, faces: Items, image: Image) -> tuple[str, float]:
    """none, portrait, person (one, small in the picture), group or crowd."""
    count, score = counted(people, faces)
    if count == 0:
        return "none", score
    tall = sorted((face["box"][3] / image.height for face in faces), reverse=True)
    wide = sorted((p["box"][2] * p["box"][3] / (image.width * image.height) for p in people), reverse=True)
    large = bool(tall) and tall[0] >= PORTRAIT_FACE
    alone = count == 1 or (len(tall) > 0 and tall[0] >= STANDS_OUT * (tall[1] if len(tall) > 1 else 0) and large)
    if alone and (large or (not tall and bool(wide) and wide[0] >= PORTRAIT_PERSON)):
        return "portrait", score
    if count == 1:
        return "person", score
    return ("crowd" if count >= CROWD else "group"), score


def appearances(picture: Pixels, coarse: Pixels) -> dict[str, Any]:
    """`picture` is at most SIDE pixels a side, `coarse` the same at COLOUR_SIDE."""
    colourful = appearance.colourfulness(coarse)
    without = likely(1.6 - appearance.colour_left(coarse), 0.3)
    if appearance.mean_chroma(coarse) > 30:  # one strong colour is no tone
        without = 0.0
    blurred = likely(appearance.blur(picture) - 0.42, 0.04)
    under, over = appearance.exposure(picture)
    return {
        "colourfulness": {
            "value": appearance.colourfulness_word(colourful),
            "score": round(min(colourful / appearance.MOST_COLOURFUL, 1.0), 4),
        },
        "black_and_white": _yes(without),
        "blurred": _yes(blurred),
        "underexposed": _yes(under),
        "overexposed": _yes(over),
    }


def _yes(score: float) -> dict[str, Any]:
    """Yes or no, and how likely that answer is."""
    return _told(score >= 0.5, max(score, 1 - score))


def has_text(lines: Items) -> tuple[bool, float]:
    """Whether a line of at least two letters or digits was read, and the best score of one."""
    scores = [line["score"] for line in lines if sum(letter.isalnum() for letter in line["text"]) >= 2]
    return bool(scores), max(scores, default=1.0)


def orientation(width: int, height: int) -> str:
    if max(width, height) <= SQUARE * min(width, height):
        return "square"
    return "landscape" if width > height else "portrait"


def place(outdoors: float) -> dict[str, Any] | None:
    """None where nothing tells."""
    if abs(outdoors) < TOLD:
        return None
    return _told("outdoor" if outdoors > 0 else "indoor", likely(abs(outdoors), 1.0))


def daylight(picture: Pixels, light: float | None) -> dict[str, Any]:
    """day or night: by the exposure value where the camera tells it, else by how dark half of the picture is."""
    if light is not None:
        night = likely(NIGHT_EXPOSURE - light, 1.0)
    else:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        night = likely(NIGHT - float(np.median(grey)) / 255, NIGHT_WIDTH)
    return _told("night" if night >= 0.5 else "day", max(night, 1 - night))

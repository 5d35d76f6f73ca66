"""Attributes: each value follows from what was found and from the pixels, and nothing is told where nothing tells."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from daemon.evaluate.attributes import as_label
from enrichers import appearance, saliency
from enrichers.attributes import Attributes, kinds, orientation
from enrichers.contract import Face, Result
from enrichers.image import Facts, Image, Pixels
from enrichers.place import PlaceWords, exposed_outdoors, exposure_value
from tests.unit.scene_images import OneNetwork, image, textured

NOTHING: Mapping[str, Any] = {"items": []}


def answer(
    pixels: Pixels,
    objects: list[dict[str, Any]] | None = None,
    faces: list[dict[str, Any]] | None = None,
    lines: list[dict[str, Any]] | None = None,
    tags: dict[str, float] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    enricher = Attributes(Attributes.defaults)
    enricher.load(OneNetwork(None))
    seen = image(pixels)
    seen.facts = replace(seen.facts, **{"format": "JPEG", **(facts or {})})
    seen.results = {
        "objects": {"items": objects or []},
        "faces": {"items": faces or []},
        "text": {"lines": lines or []},
        "tags": {"items": [{"label": label, "score": score} for label, score in (tags or {}).items()]},
    }
    (outcome,) = enricher.enrich([seen])
    assert isinstance(outcome, Result)
    return dict(outcome.answer)


def person(x: float, y: float, w: float, h: float, score: float = 0.9) -> dict[str, Any]:
    return {"label": "person", "score": score, "box": [x, y, w, h]}


def face(x: float, y: float, w: float, h: float, score: float = 0.9) -> dict[str, Any]:
    return {"score": score, "box": [x, y, w, h]}


def line(text: str, score: float = 0.9) -> dict[str, Any]:
    return {"text": text, "score": score, "box": [10, 10, 100, 12]}


PHOTO = textured(0)  # 320 × 240, noise everywhere as in a photo


@pytest.mark.parametrize(
    ("people", "faces", "count", "kind"),
    [
        ([], [], 0, "none"),
        ([person(10, 10, 20, 60)], [], 1, "person"),  # far away
        ([person(10, 0, 200, 240)], [], 1, "portrait"),  # fills the picture, turned away
        ([], [face(100, 60, 60, 80)], 1, "portrait"),  # a face without a body
        ([person(10, 10, 20, 60)], [face(14, 12, 8, 10)], 1, "person"),
        ([], [face(20, 60, 60, 80), face(150, 60, 60, 80)], 2, "group"),
        ([], [face(20, 60, 60, 80), face(250, 60, 12, 15)], 2, "portrait"),  # the other one is far behind
        ([person(40 * n, 10, 30, 90) for n in range(3)], [face(50, 12, 8, 10)], 3, "group"),  # more bodies than faces
        ([person(30 * n, 10, 20, 60) for n in range(8)], [], 8, "crowd"),
    ],
)
def test_people_and_shot(people: list[Any], faces: list[Any], count: int, kind: str) -> None:
    found = answer(PHOTO, objects=people, faces=faces)
    assert found["people"]["value"] == count
    assert found["shot"]["value"] == kind
    assert 0 < found["shot"]["score"] <= 1


@pytest.mark.parametrize(
    ("objects", "tags", "value"),
    [
        (["toilet", "sink"], {}, "indoor"),
        (["car", "traffic light"], {}, "outdoor"),
        ([], {"alp": 0.9, "mountain": 0.5}, "outdoor"),
        ([], {"sports car": 0.9}, "outdoor"),  # has no weight of its own, its hypernym vehicle has
        ([], {"refrigerator": 0.8}, "indoor"),
    ],
)
def test_place_follows_from_what_is_in_it(objects: list[str], tags: dict[str, float], value: str) -> None:
    items = [{"label": label, "score": 0.9, "box": [0, 0, 50, 50]} for label in objects]
    found = answer(PHOTO, objects=items, tags=tags)["place"]
    assert found["value"] == value and found["score"] > 0.5


def test_nothing_is_told_of_a_place_where_nothing_tells() -> None:
    assert answer(PHOTO)["place"] is None


@pytest.mark.parametrize(
    ("time", "stop", "iso", "value"),
    [
        (1 / 500, 11.0, 100, 15.9),  # full sun
        (1 / 60, 2.8, 400, 6.9),  # a room
        (1.0, 2.0, 100, 2.0),  # a street at night
    ],
)
def test_exposure_value(time: float, stop: float, iso: int, value: float) -> None:
    camera = {"exposure_s": time, "f_number": stop, "iso": iso, "flash": None}
    assert exposure_value(camera) == pytest.approx(value, abs=0.1)


@pytest.mark.parametrize(
    "camera",
    [
        None,
        {"exposure_s": None, "f_number": 2.8, "iso": 100, "flash": None},
        {"exposure_s": 0.01, "f_number": 2.8, "iso": 100, "flash": True},  # its own light
    ],
)
def test_no_exposure_value_without_settings_or_with_flash(camera: dict[str, Any] | None) -> None:
    assert exposure_value(camera) is None


@pytest.mark.parametrize("value", [-20.0, 40.0])
def test_exposure_never_outweighs_everything(value: float) -> None:
    assert abs(exposed_outdoors(value)) <= 3


def test_the_camera_tells_day_from_night() -> None:
    sun = {"Make": "X", "ExposureTime": 1 / 500, "FNumber": 11.0, "ISOSpeedRatings": 100}
    street = {**sun, "ExposureTime": 2.0, "FNumber": 2.0}
    assert answer(PHOTO, facts={"exif": sun})["daylight"]["value"] == "day"
    assert answer(PHOTO, facts={"exif": sun})["place"]["value"] == "outdoor"
    bus = [
        {"label": "bus", "score": 0.9, "box": [0, 0, 99, 99]},
        {"label": "traffic light", "score": 0.9, "box": [0] * 4},
    ]
    assert answer(PHOTO, objects=bus, facts={"exif": street})["daylight"]["value"] == "night"


def test_a_dark_picture_is_of_the_night_and_a_room_is_of_neither() -> None:
    assert answer((PHOTO * 0.2).astype(np.uint8))["daylight"]["value"] == "night"
    assert answer(PHOTO)["daylight"]["value"] == "day"
    sink = [{"label": "sink", "score": 0.9, "box": [0, 0, 50, 50]}]
    assert answer(PHOTO, objects=sink)["daylight"] is None


@pytest.mark.parametrize(
    ("width", "height", "value"),
    [(400, 300, "landscape"), (300, 400, "portrait"), (300, 300, "square"), (310, 300, "square"), (1, 900, "portrait")],
)
def test_orientation(width: int, height: int, value: str) -> None:
    assert orientation(width, height) == value


def page() -> Pixels:
    """A white page with black writing."""
    sheet = np.full((800, 600, 3), 255, np.uint8)
    for row in range(60, 760, 30):
        cv2.putText(sheet, "the quick brown fox jumps over it", (40, row), 0, 0.8, (0, 0, 0), 2)
    return sheet


def drawing() -> Pixels:
    picture = np.full((400, 400, 3), 240, np.uint8)
    cv2.circle(picture, (200, 200), 120, (200, 30, 30), -1)
    cv2.rectangle(picture, (40, 300), (360, 380), (30, 90, 200), -1)
    return picture


def screenshot() -> Pixels:
    window = np.full((600, 900, 3), 250, np.uint8)
    window[:40] = (60, 70, 90)
    window[60:400, 40:500] = cv2.resize(textured(3), (460, 340))
    for row in range(80, 560, 30):
        cv2.putText(window, "some words here", (540, row), 0, 0.7, (40, 40, 40), 1)
    return window


@pytest.mark.parametrize(
    ("picture", "lines", "kind"),
    [
        (PHOTO, 0, "photo"),
        (page(), 20, "document"),
        (drawing(), 0, "drawing"),
        (screenshot(), 14, "screenshot"),
    ],
)
def test_kind_of_picture(picture: Pixels, lines: int, kind: str) -> None:
    found = answer(picture, lines=[line("some words here")] * lines)
    assert found["kind"]["value"] == kind
    if kind != "photo":
        assert found["place"] is None and found["daylight"] is None


def test_kinds_sum_to_one() -> None:
    facts = Facts("PNG", 1, "0" * 64, 10, 10)
    assert sum(kinds(appearance.texture(page()), 5, 0.2, False, facts).values()) == pytest.approx(1)


def toned(picture: Pixels) -> Pixels:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None]
    return np.clip(grey * np.array([1.07, 0.95, 0.75]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("picture", "value"),
    [
        (PHOTO, False),
        (np.repeat(cv2.cvtColor(PHOTO, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2), True),
        (toned(PHOTO), True),  # sepia
        (np.full((60, 60, 3), (220, 30, 30), np.uint8), False),  # one strong colour
    ],
)
def test_black_and_white(picture: Pixels, value: bool) -> None:
    assert answer(picture)["black_and_white"]["value"] is value


def sharp() -> Pixels:
    random = np.random.default_rng(5)
    return cv2.resize(random.integers(0, 255, (60, 80, 3), np.uint8), (480, 360), interpolation=cv2.INTER_NEAREST)


def test_blurred() -> None:
    assert answer(sharp())["blurred"]["value"] is False
    assert answer(cv2.GaussianBlur(sharp(), (0, 0), 6))["blurred"]["value"] is True


def test_a_sharp_part_before_a_blurred_background_is_sharp() -> None:
    picture = cv2.GaussianBlur(sharp(), (0, 0), 6)
    picture[120:240, 160:320] = sharp()[120:240, 160:320]
    assert answer(picture)["blurred"]["value"] is False


@pytest.mark.parametrize(
    ("picture", "under", "over"),
    [
        (PHOTO, False, False),
        ((PHOTO * 0.2).astype(np.uint8), True, False),
        (np.clip(PHOTO.astype(float) * 2 + 60, 0, 255).astype(np.uint8), False, True),
    ],
)
def test_exposure(picture: Pixels, under: bool, over: bool) -> None:
    found = answer(picture)
    assert (found["underexposed"]["value"], found["overexposed"]["value"]) == (under, over)


@pytest.mark.parametrize(
    ("lines", "value"), [([], False), ([line("STOP")], True), ([line("!")], False), ([line("a")], False)]
)
def test_has_text_needs_two_letters(lines: list[Any], value: bool) -> None:
    assert answer(PHOTO, lines=lines)["has_text"]["value"] is value


def test_colourfulness_grows_with_saturation() -> None:
    grey = np.repeat(PHOTO[:, :, :1], 3, axis=2)
    assert appearance.colourfulness(grey) < 1
    assert appearance.colourfulness(grey // 2 + PHOTO // 2) < appearance.colourfulness(PHOTO)
    assert answer(grey)["colourfulness"]["value"] == "none"


def inside(inner: tuple[float, ...], outer: list[float]) -> bool:
    x, y, w, h = inner
    return outer[0] <= x and outer[1] <= y and x + w <= outer[0] + outer[2] + 1 and y + h <= outer[1] + outer[3] + 1


def test_what_matters_is_the_face_and_crops_keep_it() -> None:
    plain = np.full((300, 600, 3), 128, np.uint8)
    box = (480.0, 60.0, 60.0, 80.0)
    found = answer(plain, faces=[face(*box)])
    x, _, w, _ = found["focus"]["value"]
    assert x + w / 2 > 300  # right of the middle
    square = found["crops"]["1x1"]["value"]
    assert inside(box, square) and square[2] == pytest.approx(square[3], abs=1)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 700, 3), (700, 2, 3), (64, 64, 3)])
def test_pictures_of_any_form_have_all_attributes(shape: tuple[int, int, int]) -> None:
    found = answer(np.full(shape, 90, np.uint8))
    for name, ratio in (("1x1", 1), ("4x3", 4 / 3), ("3x4", 3 / 4), ("16x9", 16 / 9)):
        x, y, w, h = found["crops"][name]["value"]
        assert w / max(h, 0.01) == pytest.approx(ratio, rel=0.1) or min(w, h) < 3
        assert x >= 0 and y >= 0 and x + w <= shape[1] + 0.1 and y + h <= shape[0] + 0.1


def test_saliency_finds_the_one_thing_in_an_empty_picture() -> None:
    picture = np.full((240, 320, 3), 200, np.uint8)
    cv2.circle(picture, (250, 60), 20, (20, 20, 160), -1)
    window = saliency.focus(saliency.weights(picture, []))
    assert window.x + window.width / 2 > 0.55 and window.y + window.height / 2 < 0.5


def test_faces_of_an_answer_are_seen_by_what_requires_them() -> None:
    found = Face((1, 2, 3, 4), ((0, 0),) * 5, 0.8, {}, {}, b"", {"age": 30})
    assert Result({"count": 1}, (found,)).required()["items"] == [
        {"box": [1, 2, 3, 4], "score": 0.8, "quality": {}, "age": 30}
    ]
    assert Result({"count": 0}).required() == {"count": 0}


def test_words_without_weight_say_nothing() -> None:
    assert PlaceWords.load().outdoors({"no such thing": 1.0}, ["person"]) == pytest.approx(
        PlaceWords.load().outdoors({}, ["person"])
    )


@pytest.mark.parametrize(("told", "label"), [(None, "none"), ({"value": True}, "true"), ({"value": 3}, "3")])
def test_labels_are_compared_as_text(told: Any, label: str) -> None:
    assert as_label(told) == label


def test_image_is_not_changed() -> None:
    before = PHOTO.copy()
    seen: Image = image(PHOTO)
    seen.pixels.flags.writeable = False
    answer(seen.pixels)
    assert np.array_equal(PHOTO, before)

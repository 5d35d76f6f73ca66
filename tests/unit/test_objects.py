"""The objects enricher: its answers, windows and settings, on a detector made by the test and on the real weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from daemon.config import Config
from enrichers import coco, objects
from enrichers.catalogue import Catalogue
from enrichers.contract import Result
from enrichers.errors import SettingInvalid
from enrichers.image import Facts, Image, Pixels
from enrichers.loading import ProcessLoader
from enrichers.objects import Objects
from enrichers.weights import ModelStore
from enrichers.windows import Boxes, grid

PERSON, DOG = coco.NAMES.index("person"), coco.NAMES.index("dog")


def image_of(pixels: Pixels, enlarged: int = 1) -> Image:
    """An image whose file is `enlarged` times as large as its pixels."""
    height, width = pixels.shape[0] * enlarged, pixels.shape[1] * enlarged
    facts = Facts(format="PNG", bytes=1, sha256="0" * 64, width=width, height=height)
    return Image(0, pixels, width, height, facts)


class Spots:
    """Sees a dog in each picture that holds a white pixel, at that pixel, and a person that fills the picture."""

    names = coco.NAMES

    def __init__(self) -> None:
        self.batches: list[int] = []

    def detect(self, pictures: Sequence[Pixels], min_score: float) -> list[Boxes]:
        self.batches.append(len(pictures))
        return [self._one(picture) for picture in pictures]

    def _one(self, picture: Pixels) -> Boxes:
        height, width = picture.shape[:2]
        rows, columns = np.nonzero(picture.min(axis=2) == 255)
        corners, scores, classes = [(0.0, 0.0, 1.0, 1.0)], [0.6], [PERSON]
        for row, column in zip(rows, columns, strict=True):
            corners.append((column / width, row / height, (column + 1) / width, (row + 1) / height))
            scores.append(0.9)
            classes.append(DOG)
        return Boxes(np.array(corners, np.float32), np.array(scores, np.float32), np.array(classes))


def enricher(detector: Any = None, **changes: Any) -> Objects:
    made = Objects({**Objects.defaults, **changes})
    made._detector = detector or Spots()
    return made


def answers(made: Objects, images: Sequence[Image]) -> list[Any]:
    results = made.enrich(images)
    assert all(isinstance(result, Result) for result in results)
    return [result.answer for result in results if isinstance(result, Result)]


def spotted(*spots: tuple[int, int], shape: tuple[int, int] = (100, 200)) -> Pixels:
    pixels = np.zeros((*shape, 3), np.uint8)
    for row, column in spots:
        pixels[row, column] = 255
    return pixels


def test_boxes_are_pixels_of_the_upright_file() -> None:
    (answer,) = answers(enricher(detail="fast"), [image_of(spotted((10, 20)), enlarged=4)])
    assert answer["labels"] == ["dog", "person"]
    assert answer["counts"] == {"dog": 1, "person": 1}
    dog, person = answer["items"]
    assert dog == {"label": "dog", "score": 0.9, "box": pytest.approx([80, 40, 4, 4], abs=0.1)}
    assert person["box"] == pytest.approx([0, 0, 800, 400])
    assert answer["cut"] == 0


@pytest.mark.parametrize("detail", ["fast", "balanced", "best"])
def test_an_object_seen_in_several_windows_counts_once(detail: str) -> None:
    (answer,) = answers(enricher(detail=detail), [image_of(spotted((50, 100)))])  # the middle is in every 2 × 2 window
    assert answer["counts"] == {"dog": 1, "person": 1}  # and the person of each window is cut by its border


@pytest.mark.parametrize(("detail", "passes"), [("fast", 1), ("balanced", 5), ("best", 21)])
def test_windows_of_all_images_go_to_the_network_together(detail: str, passes: int) -> None:
    spots = Spots()
    answers(enricher(spots, detail=detail), [image_of(spotted())] * 3)
    assert spots.batches == [3 * passes]


def test_a_large_picture_gets_windows_in_any_case() -> None:
    spots = Spots()
    answers(enricher(spots, detail="fast", large_side=799), [image_of(spotted(), enlarged=4)])
    answers(enricher(spots, detail="fast", large_side=800), [image_of(spotted(), enlarged=4)])  # not larger than that
    assert spots.batches == [5, 1]


def test_a_picture_with_very_many_objects_says_how_many_were_cut() -> None:
    pixels = spotted(*[(row, column) for row in range(0, 100, 4) for column in range(0, 200, 4)])
    (answer,) = answers(enricher(detail="fast", max_items=100), [image_of(pixels)])
    assert len(answer["items"]) == 100
    assert answer["cut"] == 25 * 50 + 1 - 100
    assert answer["counts"]["dog"] == 25 * 50  # counts are of all that was found


def test_a_picture_without_objects_has_an_empty_answer() -> None:
    class Nothing(Spots):
        def _one(self, picture: Pixels) -> Boxes:
            return Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    (answer,) = answers(enricher(Nothing()), [image_of(spotted())])
    assert answer == {"labels": [], "counts": {}, "items": [], "cut": 0}


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"detail": "bets"}, "did you mean 'best'"), ({"min_score": 0.0}, "above 0"), ({"min_score": 1.5}, "at most 1")],
)
def test_a_wrong_setting_is_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingInvalid, match=message):
        enricher(**setting)


def test_the_form_is_large_enough_for_the_smallest_window() -> None:
    for detail, grids in objects.DETAILS.items():
        side = objects.SIDES[detail]
        assert all(w.right - w.left >= 300 for n in (1, *grids) for w in grid(n, n, side, side)), detail


def test_another_model_is_another_fingerprint() -> None:
    assert enricher().fingerprint({}) != enricher(detail="best").fingerprint({})
    entry = {"task": "objects", "provider": "url", "url": "https://example.org/x", "sha256": "ab" * 32}
    other = enricher(model="mine")
    other.catalogue = Catalogue.load({"mine": entry})
    assert other.fingerprint({}) != enricher().fingerprint({})


def test_the_default_weights_find_the_cat_and_the_cup() -> None:
    from skimage import data

    store = ModelStore(Config().models.folder, Catalogue.load())
    if store.missing([Objects.defaults["model"]]):
        pytest.skip("the weights are not in the cache: run `enrichd models pull`")
    made = Objects(Objects.defaults)
    made.load(ProcessLoader(store, "cpu", 2))
    cat, coffee = answers(made, [image_of(data.chelsea()), image_of(data.coffee())])
    assert cat["counts"]["cat"] == 1
    assert "cup" in coffee["labels"]
    _, _, width, height = cat["items"][0]["box"]
    assert width * height > 0.3 * 451 * 300  # chelsea fills the photo

"""The figures of `enrichd evaluate objects`, and its labels."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from daemon.evaluate import frame
from daemon.evaluate.frame import Evaluated, LabelsInvalid, Options
from daemon.evaluate.objects import average_precision, detections, milliseconds, overlap, read_labels
from enrichers.contract import Failure, Result
from tests.unit.scene_images import image, textured

TRUTH: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "a.jpg", "width": 200, "height": 200}],
    "annotations": [
        {"id": 0, "image_id": 7, "category_id": 3, "bbox": [10, 10, 100, 100], "area": 10000, "iscrowd": 0},
        {"id": 1, "image_id": 7, "category_id": 5, "bbox": [150, 150, 20, 20], "area": 400, "iscrowd": 0},
    ],
    "categories": [{"id": 3, "name": "dog"}, {"id": 5, "name": "cup"}],
}


def found(*items: tuple[str, float, list[float]]) -> list[dict[str, Any]]:
    answer = {"items": [{"label": label, "score": score, "box": box} for label, score, box in items]}
    return detections([Evaluated(Path("a.jpg"), None, {"objects": Result(answer)})], [7], TRUTH["categories"])


DOG, CUP = ("dog", 0.9, [10.0, 10.0, 100.0, 100.0]), ("cup", 0.8, [150.0, 150.0, 20.0, 20.0])


@pytest.mark.parametrize(
    ("items", "ap", "small", "large"),
    [
        ([DOG, CUP], 1.0, 1.0, 1.0),
        ([DOG], 0.5, 0.0, 1.0),  # half of the classes
        ([CUP], 0.5, 1.0, 0.0),
        ([("dog", 0.9, [60.0, 60.0, 100.0, 100.0]), CUP], 0.5, 1.0, 0.0),  # a box that overlaps by a seventh
        ([], 0.0, 0.0, 0.0),
        ([("unicorn", 0.9, DOG[2])], 0.0, 0.0, 0.0),  # no category of the labels
    ],
)
def test_average_precision(items: Any, ap: float, small: float, large: float) -> None:
    figures = average_precision(TRUTH, found(*items), [7])
    assert figures["ap"] == pytest.approx(ap)
    assert figures["ap_small"] == pytest.approx(small)
    assert figures["ap_large"] in (pytest.approx(large), None)


def test_a_size_without_labels_has_no_figure() -> None:
    assert average_precision(TRUTH, found(DOG, CUP), [7])["ap_large"] == pytest.approx(1.0)
    small = {**TRUTH, "annotations": TRUTH["annotations"][1:]}
    assert average_precision(small, found(CUP), [7])["ap_large"] is None


def test_an_image_that_cannot_be_read_has_no_detections() -> None:
    failed = Evaluated(Path("a.jpg"), None, {"objects": Failure("CorruptImage", "damaged")})
    assert detections([failed], [7], TRUTH["categories"]) == []


@pytest.mark.parametrize(
    ("other", "expected"),
    [([0, 0, 2, 2], 1.0), ([1, 0, 2, 2], 1 / 3), ([2, 0, 2, 2], 0.0), ([5, 5, 0, 0], 0.0)],  # touching, empty
)
def test_overlap(other: list[float], expected: float) -> None:
    assert overlap([0, 0, 2, 2], other) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    ["nonsense", "[]", "{}", json.dumps({**TRUTH, "images": []}), json.dumps({**TRUTH, "annotations": [{"id": 1}]})],
)
def test_labels_of_another_format_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(LabelsInvalid):
        read_labels(path)


def test_time_is_taken_of_whole_batches_after_one_to_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        max_batch = 8
        batches: ClassVar[list[int]] = []

        def enrich(self, images: Any) -> None:
            self.batches.append(len(images))

    monkeypatch.setattr(frame, "load_enrichers", lambda names, config: [Counting()])
    told = milliseconds([image(textured(0), key) for key in range(10)], Options(), {"detail": "fast"})
    assert told is not None and told > 0
    assert Counting.batches == [8, 8, 2]
    assert milliseconds([], Options(), {}) is None

"""Reading caption labels, and judging captions by them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from daemon.evaluate.caption import Labelled, judge, read_labels
from daemon.evaluate.frame import LabelsInvalid


def write(path: Path, table: Any) -> Path:
    path.write_text(json.dumps(table), "utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        Pillow.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


CAPTIONS = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}, {"id": 3, "file_name": "gone.jpg"}],
    "annotations": [
        {"image_id": 1, "caption": "A man rides a horse."},
        {"image_id": 1, "caption": "Someone on a brown horse in a field"},
        {"image_id": 2, "caption": "Two dogs on grass"},
        {"image_id": 3, "caption": "Nothing"},
    ],
}
INSTANCES = {
    "images": [{"id": 2, "file_name": "b.jpg"}],
    "categories": [{"id": 7, "name": "frisbee"}],
    "annotations": [{"image_id": 2, "category_id": 7}],
}


def test_labels_are_those_of_the_images_in_the_folder(folder: Path) -> None:
    labelled = read_labels(folder, write(folder / "c.json", CAPTIONS), write(folder / "i.json", INSTANCES))
    assert [(one.path.name, len(one.references), one.labels) for one in labelled] == [
        ("a.jpg", 2, frozenset()),
        ("b.jpg", 1, frozenset({"frisbee"})),
    ]


@pytest.mark.parametrize(
    "table",
    [
        [],  # no object
        {"images": []},  # nothing annotated
        {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"caption": "x"}]},  # of no image
        {"images": [{"id": 3, "file_name": "gone.jpg"}], "annotations": [{"image_id": 3, "caption": "x"}]},  # not here
    ],
)
def test_other_labels_are_refused(folder: Path, table: Any) -> None:
    with pytest.raises(LabelsInvalid):
        read_labels(folder, write(folder / "c.json", table))


def test_a_noun_is_right_where_a_reference_or_a_label_supports_it() -> None:
    labelled = [
        Labelled(Path("a"), ("a man rides a horse", "a person in a field"), frozenset()),
        Labelled(Path("b"), ("two dogs on grass",), frozenset({"frisbee"})),
    ]
    judged, figures = judge(["A person on a horse near a barn.", "An animal with a frisbee and a cat."], labelled)
    assert [one.nouns for one in judged] == [("person", "horse", "barn"), ("animal", "frisbee", "cat")]
    assert [one.wrong for one in judged] == [("barn",), ("cat",)]
    assert figures["noun_precision"] == pytest.approx(4 / 6)
    assert figures["images"] == 2


def test_the_references_themselves_score_highest() -> None:
    labelled = [
        Labelled(Path(str(n)), (f"a {w} on a table",), frozenset()) for n, w in enumerate(("cat", "dog", "cup"))
    ]
    _, right = judge([one.references[0] for one in labelled], labelled)
    _, shifted = judge([labelled[n - 1].references[0] for n in range(3)], labelled)
    _, silent = judge(["", "", ""], labelled)
    assert right["noun_precision"] == 1.0
    assert right["bleu4"] == pytest.approx(1.0, abs=1e-6)
    assert right["cider"] > shifted["cider"] == silent["cider"] == 0.0  # "on a table" is in all, so it weighs nothing
    assert silent["noun_precision"] is None

"""The labels of whole pictures that the evaluation data implies."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from daemon.evaluate.implied_labels import taken_outdoors, write
from daemon.evaluate.labels import read_labels


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("coco/images", "lfw/people/Ann", "lfw/people/Ben", "exif_orientation"):
        (folder / name).mkdir(parents=True)
    Pillow.new("RGB", (8, 6), (90, 90, 90)).save(folder / "coco/images/1.jpg")
    Pillow.new("RGB", (8, 6), (200, 20, 20)).save(folder / "coco/images/2.jpg")
    for name in ("Ann/Ann_0001", "Ann/Ann_0002", "Ben/Ben_0001"):
        Pillow.new("RGB", (4, 4)).save(folder / f"lfw/people/{name}.jpg")
    Pillow.new("RGB", (8, 6)).save(folder / "exif_orientation/Landscape_1.jpg")
    Pillow.new("RGB", (6, 8)).save(folder / "exif_orientation/Landscape_6.jpg")
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2)]
    captions = [{"image_id": 1, "caption": "A dog on a beach."}, {"image_id": 2, "caption": "A red thing."}]
    (folder / "coco/captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    boxes = [{"image_id": 2, "category_id": 1, "iscrowd": 0}] * 3
    kinds = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
    (folder / "coco/instances.json").write_text(
        json.dumps({"images": images, "annotations": boxes, "categories": kinds})
    )
    return folder


def test_attributes(data: Path, tmp_path: Path) -> None:
    write(data, tmp_path / "labels")
    rows = read_labels(tmp_path / "labels" / "attributes.tsv")
    told = {(row.path.stem, row.attribute): row.value for row in rows}
    assert told == {
        ("1", "kind"): "photo",
        ("1", "black_and_white"): "true",
        ("1", "place"): "outdoor",
        ("1", "people"): "0",
        ("1", "shot"): "none",
        ("2", "kind"): "photo",
        ("2", "black_and_white"): "false",  # and nothing tells its place
        ("2", "people"): "3",
    }
    assert all(row.path.is_file() for row in rows)


def test_safety_takes_one_photo_of_each_person(data: Path, tmp_path: Path) -> None:
    write(data, tmp_path)
    rows = read_labels(tmp_path / "safety.tsv", "label")
    assert [row.path.name for row in rows] == ["1.jpg", "2.jpg", "Ann_0001.jpg", "Ben_0001.jpg"]
    assert {row.value for row in rows} == {"safe"}


def test_orientation_is_judged_by_the_photo_that_is_stored_upright(data: Path, tmp_path: Path) -> None:
    write(data, tmp_path)
    rows = [line.split("\t")[1:] for line in (tmp_path / "orientation.tsv").read_text().splitlines()]
    assert rows == [["width", "8"], ["height", "6"]] * 2


def test_data_without_a_set_gives_no_file_for_it(tmp_path: Path) -> None:
    (tmp_path / "data" / "sroie").mkdir(parents=True)
    Pillow.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "data" / "sroie" / "x.jpg")
    assert write(tmp_path / "data", tmp_path / "labels") == {tmp_path / "labels" / "attributes.tsv": 2}


@pytest.mark.parametrize(
    ("captions", "outdoors"),
    [
        ("A bus on a street.", True),
        ("A sofa in a living room", False),
        ("A kitchen with a view of the ocean", None),  # both
        ("Two cats", None),
        ("Streetcar", None),  # whole words only
    ],
)
def test_taken_outdoors(captions: str, outdoors: bool | None) -> None:
    assert taken_outdoors(captions) is outdoors

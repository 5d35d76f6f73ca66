"""Writes labels for `enrichd evaluate attributes` from the evaluation data: what its own labels say of whole pictures.

    python training/attributes/labels.py DATA > labels.tsv

place: COCO's captions, where they name places of one kind only; people and none of them in the shot: COCO's boxes
(without those that stand for many); kind: photo for COCO, document for SROIE's scans; black_and_white: whether all of a
photo's pixels are grey; has_text: SROIE's scans.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2

from training.attributes.place import place

Row = tuple[Path, str, str]


def photos(folder: Path) -> Iterator[Row]:
    captions = json.loads((folder / "captions.json").read_text())
    told: dict[int, list[str]] = {}
    for caption in captions["annotations"]:
        told.setdefault(caption["image_id"], []).append(caption["caption"])
    for image in captions["images"]:
        path = folder / "images" / Path(image["file_name"]).name
        yield path, "kind", "photo"
        pixels = cv2.imread(str(path))
        yield path, "black_and_white", str(bool((pixels.max(axis=2) == pixels.min(axis=2)).all())).lower()
        outdoors = place(re.sub(r"[^a-z ]", " ", " ".join(told[image["id"]]).lower()))
        if outdoors is not None:
            yield path, "place", "outdoor" if outdoors else "indoor"


def people(folder: Path) -> Iterator[Row]:
    instances = json.loads((folder / "instances.json").read_text())
    person = next(kind["id"] for kind in instances["categories"] if kind["name"] == "person")
    boxes = [box for box in instances["annotations"] if box["category_id"] == person]
    many = {box["image_id"] for box in boxes if box["iscrowd"]}
    count = Counter(box["image_id"] for box in boxes)
    for image in instances["images"]:
        if image["id"] in many:
            continue
        path = folder / "images" / Path(image["file_name"]).name
        yield path, "people", str(count[image["id"]])
        if not count[image["id"]]:
            yield path, "shot", "none"


def scans(folder: Path) -> Iterator[Row]:
    for path in sorted(folder.rglob("*.jpg")):
        yield path, "kind", "document"
        yield path, "has_text", "true"


def main(data: Path) -> None:
    for path, attribute, value in [*photos(data / "coco"), *people(data / "coco"), *scans(data / "sroie")]:
        print(path, attribute, value, sep="\t")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

"""`enrichd evaluate labels`: writes the labels of whole pictures that the evaluation data's own labels imply."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

#: words of captions that tell where a photo was taken
# fmt: off
INDOORS = frozenset({
    "kitchen", "bathroom", "bedroom", "living-room", "dining-room", "room", "indoors", "inside", "office",
    "restaurant", "cafe", "classroom", "library", "museum", "hallway", "basement", "lobby", "store", "shop",
    "supermarket", "gym", "ceiling", "carpet", "couch", "sofa", "fireplace", "cabinet", "cabinets",
})
OUTDOORS = frozenset({
    "street", "outside", "outdoors", "road", "beach", "ocean", "sea", "park", "field", "forest", "woods",
    "mountain", "mountains", "hill", "hillside", "snow", "slope", "sky", "river", "lake", "sidewalk", "highway",
    "harbor", "desert", "yard", "garden", "lawn", "pasture", "meadow", "runway", "tarmac", "sunset", "savannah",
    "grass",
})
# fmt: on

Row = tuple[object, ...]


def register(app: typer.Typer) -> None:
    app.command("labels")(labels)


def labels(
    data: Annotated[Path, typer.Argument(help="Folder of the evaluation data.", exists=True, file_okay=False)],
    folder: Annotated[Path, typer.Argument(help="Folder to write attributes.tsv, safety.tsv and orientation.tsv to.")],
) -> None:
    """Write the labels that the evaluation data implies: attributes, safety and orientation of whole pictures.

    `evaluate all` makes them by itself.
    """
    for file, count in write(data, folder).items():
        typer.echo(f"{file}: {count} labels")


def write(data: Path, folder: Path) -> dict[Path, int]:
    """The files written, and how many labels each has. A set that the data lacks gives no file."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, rows_of in FILES.items():
        rows = ["\t".join(map(str, row)) for row in rows_of(data.resolve())]
        if rows:
            file = folder / name
            file.write_text("\n".join(rows) + "\n", encoding="utf-8")
            written[file] = len(rows)
    return written


def attributes(data: Path) -> Iterator[Row]:
    """place: COCO's captions, where they name places of one kind only; people and none of them in the shot: COCO's
    boxes (without those that stand for many); kind: photo for COCO, document for SROIE's scans; black_and_white:
    whether all of a photo's pixels are grey; has_text: SROIE's scans."""
    if (data / "coco").is_dir():
        yield from _photos(data / "coco")
        yield from _people(data / "coco")
    for path in sorted((data / "sroie").rglob("*.jpg")):
        yield path, "kind", "document"
        yield path, "has_text", "true"


def _photos(folder: Path) -> Iterator[Row]:
    import cv2

    captions = json.loads((folder / "captions.json").read_text("utf-8"))
    told: dict[int, list[str]] = {}
    for caption in captions["annotations"]:
        told.setdefault(caption["image_id"], []).append(caption["caption"])
    for image in captions["images"]:
        path = folder / "images" / Path(image["file_name"]).name
        yield path, "kind", "photo"
        if (pixels := cv2.imread(str(path))) is not None:
            grey = (pixels.max(axis=2) == pixels.min(axis=2)).all()
            yield path, "black_and_white", "true" if grey else "false"
        outdoors = taken_outdoors(" ".join(told.get(image["id"], ())))
        if outdoors is not None:
            yield path, "place", "outdoor" if outdoors else "indoor"


def _people(folder: Path) -> Iterator[Row]:
    instances = json.loads((folder / "instances.json").read_text("utf-8"))
    person = next(kind["id"] for kind in instances["categories"] if kind["name"] == "person")
    boxes = [box for box in instances["annotations"] if box["category_id"] == person]
    many = {box["image_id"] for box in boxes if box["iscrowd"]}
    count = Counter(box["image_id"] for box in boxes)
    for image in instances["images"]:
        if image["id"] in many:
            continue
        path = folder / "images" / Path(image["file_name"]).name
        yield path, "people", count[image["id"]]
        if not count[image["id"]]:
            yield path, "shot", "none"


def taken_outdoors(captions: str) -> bool | None:
    """Whether captions are of a photo taken outdoors; None where they do not tell, or tell both."""
    words = re.sub(r"[^a-z ]", " ", captions.lower())
    joined = words.replace("living room", "living-room").replace("dining room", "dining-room").split()
    inside, outside = (any(word in kind for word in joined) for kind in (INDOORS, OUTDOORS))
    return None if inside == outside else outside


def safety(data: Path) -> Iterator[Row]:
    """COCO's photos and one of each of LFW's people, all of which are harmless."""
    for path in sorted((data / "coco" / "images").glob("*.jpg")):
        yield path, "safe"
    for person in sorted((data / "lfw" / "people").glob("*")):
        yield from ((path, "safe") for path in sorted(person.glob("*.jpg"))[:1])


def orientation(data: Path) -> Iterator[Row]:
    """One photo in every EXIF orientation: upright, each has the size of the one whose pixels are stored upright."""
    from PIL import Image

    for path in sorted((data / "exif_orientation").glob("*_*.jpg")):
        with Image.open(path.with_stem(f"{path.stem.partition('_')[0]}_1")) as upright:
            yield path, "width", upright.width
            yield path, "height", upright.height


FILES: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    "attributes.tsv": attributes,
    "safety.tsv": safety,
    "orientation.tsv": orientation,
}

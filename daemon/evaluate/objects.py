"""`enrichd evaluate objects`: how well objects are found, in COCO's average precision."""

import contextlib
import io
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.evaluate import frame
from daemon.evaluate.frame import Evaluated, LabelsInvalid, Options
from enrichers.errors import EnrichdError
from enrichers.image import Image

#: lowest score that is measured: average precision looks at unsure boxes too, which users are not shown
MIN_SCORE = 0.01

#: boxes of an image that COCO's measure looks at
MAX_ITEMS = 100

#: score from which a box that no label explains is an error in the pictures of `--save-errors`
SHOWN_SCORE = 0.4

#: images that the time is measured on
TIMED = 32

#: overlap (intersection over union) from which a box in those pictures is the labelled object
SHOWN_OVERLAP = 0.5

#: COCO's names of the figures, in the order in which its evaluation gives them; the rest is about recall
FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")

Detail = Annotated[str | None, typer.Option("--detail", help="fast, balanced or best; default: as configured.")]


def register(app: typer.Typer) -> None:
    app.command("objects")(objects)


@frame.with_options
def objects(
    options: Options,
    images: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of the images.")],
    labels: Annotated[Path, typer.Option("--labels", exists=True, dir_okay=False, help="COCO's instances JSON.")],
    detail: Detail = None,
) -> None:
    """Measure found objects: COCO's average precision, over all sizes and by size.

    An image that cannot be read counts with all its objects missed.
    """
    truth = read_labels(labels)
    chosen = options.pick(truth["images"])
    settings = {"min_score": MIN_SCORE, "max_items": MAX_ITEMS, **({"detail": detail} if detail else {})}
    paths = [images / str(image["file_name"]) for image in chosen]
    config = options.config("objects", settings)
    evaluated = list(frame.run_enrichers(["objects"], paths, config))
    found = detections(evaluated, [image["id"] for image in chosen], truth["categories"])
    unread = sum(item.answer("objects") is None for item in evaluated)
    figures = average_precision(truth, found, [image["id"] for image in chosen])
    pictures = [item.image for item in evaluated if item.image is not None][:TIMED]
    figures["ms_per_image"] = milliseconds(pictures, options, {"detail": detail} if detail else {})
    frame.report("objects", {**figures, "images": len(chosen), "unread": unread}, options)
    if options.save_errors:
        names = {category["id"]: category["name"] for category in truth["categories"]}
        for image, item in zip(chosen, evaluated, strict=True):
            wanted = [a for a in truth["annotations"] if a["image_id"] == image["id"] and not a.get("iscrowd")]
            _save(options.save_errors, item, [(names[a["category_id"]], a["bbox"]) for a in wanted])


def read_labels(file: Path) -> dict[str, Any]:
    """The parts `images`, `annotations` and `categories` of a file in COCO's format. Raises LabelsInvalid."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        parts = {part: list(table[part]) for part in ("images", "annotations", "categories")}
        for annotation in parts["annotations"]:
            _, _, width, height = annotation["bbox"]
            annotation.setdefault("area", width * height)
            annotation.setdefault("iscrowd", 0)
            annotation["category_id"], annotation["image_id"]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise LabelsInvalid(f"{file} is not in COCO's format of instances: {error!r}") from None
    if not parts["images"]:
        raise LabelsInvalid(f"{file} names no image")
    return parts


def detections(
    evaluated: Iterable[Evaluated], image_ids: Iterable[Any], categories: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What was found, in COCO's result format; labels that are no category of the file cannot be measured."""
    numbers = {category["name"]: category["id"] for category in categories}
    return [
        {
            "image_id": image_id,
            "category_id": numbers[found["label"]],
            "bbox": found["box"],
            "score": found["score"],
        }
        for item, image_id in zip(evaluated, image_ids, strict=True)
        for found in (item.answer("objects") or {"items": []})["items"]
        if found["label"] in numbers
    ]


def average_precision(
    truth: Mapping[str, Any], found: Sequence[Mapping[str, Any]], image_ids: Sequence[Any]
) -> dict[str, float | None]:
    """COCO's figures (Lin et al. 2014) by their names in FIGURES; None for a size of which no object is labelled.
    Raises EnrichdError where pycocotools is not installed."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise EnrichdError("pycocotools is not installed; it comes with the extra `evaluate`") from None
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        labelled = COCO()
        labelled.dataset = {part: list(truth[part]) for part in truth}
        # pycocotools takes an object whose id is 0 for none
        labelled.dataset["annotations"] = [{**a, "id": number} for number, a in enumerate(truth["annotations"], 1)]
        labelled.createIndex()
        results = labelled.loadRes(list(found)) if found else COCO()
        evaluation = COCOeval(labelled, results, "bbox")
        evaluation.params.imgIds = list(image_ids)
        if found:
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            values = [float(value) for value in evaluation.stats[: len(FIGURES)]]
        else:
            values = [0.0] * len(FIGURES)
    return {name: value if value >= 0 else None for name, value in zip(FIGURES, values, strict=True)}


def milliseconds(images: Sequence[Image], options: Options, settings: Mapping[str, Any]) -> float | None:
    """Milliseconds on the clock that the enricher takes for a decoded image, with the settings that users have, in
    batches, on all cores that the configuration allows, after warming up."""
    if not images:
        return None
    (enricher,) = frame.load_enrichers(["objects"], options.config("objects", settings))
    batches = [images[at : at + enricher.max_batch] for at in range(0, len(images), enricher.max_batch)]
    enricher.enrich(batches[0])
    begin = time.perf_counter()
    for batch in batches:
        enricher.enrich(batch)
    return (time.perf_counter() - begin) * 1000 / len(images)


def _save(folder: Path, item: Evaluated, wanted: Sequence[tuple[str, Sequence[float]]]) -> None:
    """Writes a picture of the objects that were missed and of those that nobody labelled."""
    answer = item.answer("objects")
    items = [found for found in (answer or {"items": []})["items"] if found["score"] >= SHOWN_SCORE]
    missed, left = [], list(items)
    for label, box in wanted:
        match = next((f for f in left if f["label"] == label and overlap(f["box"], box) >= SHOWN_OVERLAP), None)
        if match:
            left.remove(match)
        else:
            missed.append((label, box))
    if not missed and not left:
        return
    boxes = [(tuple(box), f"missed {label}") for label, box in missed]
    boxes += [(tuple(found["box"]), f"{found['label']} {found['score']:.2f}?") for found in left]
    lines = [f"{len(missed)} missed, {len(left)} without a label"] if answer else [str(item.outcomes["objects"])]
    frame.save_error(folder, item.path, item.image, lines, boxes)  # type: ignore[arg-type]


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes [x, y, width, height]."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = one[2] * one[3] + other[2] * other[3] - shared
    return shared / union if union > 0 else 0.0

"""The `objects` enricher: finds things of COCO's 80 kinds, where they are and how many."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from enrichers.catalogue import nearest
from enrichers.contract import Enricher, Failure, Form, Loader, Result, Weights
from enrichers.errors import SettingInvalid
from enrichers.image import Image, Pixels
from enrichers.object_detectors import ObjectDetector, open_detector
from enrichers.windows import Boxes, Window, distinct, grid

#: windows of each detail, beside the whole picture: columns × rows of the grids, each of half the size of the last
DETAILS: Mapping[str, tuple[int, ...]] = {"fast": (), "balanced": (2,), "best": (2, 4)}

#: pixels of the picture's longest side that each detail has a use for: enough for its smallest windows
SIDES: Mapping[str, int] = {"fast": 640, "balanced": 1024, "best": 1280}


class Objects(Enricher):
    """`labels`: the kinds found, sorted; `counts`: how many of each; `items`: label, score and box of each, best
    first; `cut`: how many more there were than `max_items`."""

    name: ClassVar[str] = "objects"
    version: ClassVar[int] = 2
    concurrent: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("opencv-python-headless",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": "ssd_mobilenet_v2_coco",  # catalogue name of the detector
        "detail": "fast",  # "fast": the whole picture; "balanced", "best": overlapping windows of it too
        "min_score": 0.4,  # what scores lower is left out
        "large_side": 2000,  # pixels: a larger picture gets windows even where `detail` is "fast"
        "max_items": 100,
    }

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Raises SettingInvalid for a value that a setting cannot have."""
        super().__init__(settings)
        detail, score = settings["detail"], settings["min_score"]
        if detail not in DETAILS:
            raise SettingInvalid(f"enrichers.objects.detail is {detail!r}{nearest(detail, DETAILS)}")
        if not 0 < score <= 1:
            raise SettingInvalid(f"enrichers.objects.min_score is {score}; it must be above 0 and at most 1")

    @property
    def form(self) -> Form:
        return Form(max_side=SIDES[self.settings["detail"]])

    def weights(self) -> tuple[Weights, ...]:
        return self.catalogue.weights(self.settings["model"])

    def load(self, loader: Loader) -> None:
        self._detector: ObjectDetector = open_detector(self.catalogue.entry(self.settings["model"]), loader)

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        pictures = [image.fitted(SIDES[self.settings["detail"]]) for image in images]
        layouts = [self._windows(image, picture) for image, picture in zip(images, pictures, strict=True)]
        cuts = [window.cut(picture) for picture, windows in zip(pictures, layouts, strict=True) for window in windows]
        found = iter(self._detector.detect(cuts, self.settings["min_score"]))
        results = []
        for image, picture, windows in zip(images, pictures, layouts, strict=True):
            height, width = picture.shape[:2]
            parts = [window.whole(distinct(next(found)), width, height) for window in windows]
            results.append(self._result(image, distinct(Boxes.joined(parts))))
        return results

    def _windows(self, image: Image, picture: Pixels) -> list[Window]:
        """The whole picture first, then its windows."""
        height, width = picture.shape[:2]
        grids = DETAILS[self.settings["detail"]]
        if not grids and max(image.width, image.height) > self.settings["large_side"]:
            grids = (2,)
        return [window for side in (1, *grids) for window in grid(side, side, width, height)]

    def _result(self, image: Image, objects: Boxes) -> Result:
        labels = [str(self._detector.names[number]) for number in objects.classes]
        counts = Counter(labels)
        kept = min(len(objects), self.settings["max_items"])
        items = [self._item(image, objects, labels, index) for index in range(kept)]
        return Result(
            {
                "labels": sorted(counts),
                "counts": dict(sorted(counts.items())),
                "items": items,
                "cut": len(objects) - kept,
            }
        )

    def _item(self, image: Image, objects: Boxes, labels: Sequence[str], index: int) -> dict[str, Any]:
        left, top, right, bottom = (float(v) for v in objects.corners[index])
        box = image.full_box(left, top, right - left, bottom - top)
        return {
            "label": labels[index],
            "score": round(float(objects.scores[index]), 4),
            "box": [round(value, 1) for value in box],
        }

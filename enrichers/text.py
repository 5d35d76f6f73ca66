"""The `text` enricher: finds and reads the lines of text in a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from enrichers.contract import Enricher, Failure, Form, Loader, Result, Weights
from enrichers.image import Image
from enrichers.text_detection import TextDetector, boxes, cut, input_size
from enrichers.text_recognition import UPSIDE_DOWN, TextRecognizer, characters

DETECTION, RECOGNITION, DIRECTION = "ppocr_v6_det", "ppocr_v6_rec", "ppocr_cls"


class Text(Enricher):
    """Lines with what they say, where they stand and how sure that is, in reading order."""

    name: ClassVar[str] = "text"
    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_side": 2000,  # pixels of the longest side at which text is looked for
        "min_score": 0.5,  # lines that were read with less certainty are left out
        "max_lines": 500,  # lines that are kept of one picture
    }

    @property
    def form(self) -> Form:
        return Form(self.settings["max_side"])

    @property
    def max_batch(self) -> int:
        return 8

    def weights(self) -> tuple[Weights, ...]:
        return tuple(w for name in (DETECTION, RECOGNITION, DIRECTION) for w in self.catalogue.weights(name))

    def load(self, loader: Loader) -> None:
        self._detector = TextDetector(loader.network(DETECTION))
        alphabet = characters(Path(loader.path(RECOGNITION)))
        self._recognizer = TextRecognizer(loader.network(RECOGNITION), loader.network(DIRECTION), alphabet)

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        return [self._read(image) for image in images]

    def _read(self, image: Image) -> Result:
        picture = image.fitted(self.settings["max_side"])
        height, width = picture.shape[:2]
        size = input_size(height, width, max(1.0, 736 / min(height, width)))
        found = boxes(self._detector.maps([picture], size)[0], height, width)
        cuts = [cut(picture, quad) for quad in found.quads]
        turned = self._recognizer.upside_down(cuts) > UPSIDE_DOWN
        readings = self._recognizer.read([c[::-1, ::-1] if turn else c for c, turn in zip(cuts, turned, strict=True)])
        order = sorted(range(len(found)), key=lambda index: (found.quads[index][0, 1], found.quads[index][0, 0]))
        lines = []
        for index in order:
            reading = readings[index]
            if reading.score < self.settings["min_score"] or not reading.text.strip():
                continue
            quad = found.quads[index] * (image.width / width)
            (left, top), (right, bottom) = quad.min(0), quad.max(0)
            lines.append(
                {
                    "text": reading.text,
                    "score": round(reading.score, 4),
                    "box": [round(float(v), 1) for v in (left, top, right - left, bottom - top)],
                    "polygon": [[round(float(v), 1) for v in corner] for corner in quad],
                }
            )
        kept = lines[: self.settings["max_lines"]]
        text = "\n".join(str(line["text"]) for line in kept)
        return Result({"text": text, "count": len(lines), "lines": kept, "omitted": len(lines) - len(kept)})

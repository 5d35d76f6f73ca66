"""The `text` enricher: finds and reads the lines of text in a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from enrichers.contract import Enricher, Failure, Form, Loader, Result, Weights
from enrichers.errors import SettingInvalid
from enrichers.image import Image, Pixels
from enrichers.language import language
from enrichers.text_evidence import believed
from enrichers.text_layout import TextLine, TextPage, plain_text, reading_order

ENGINES = ("rapidocr", "tesseract")


class Engine(Protocol):
    def read(self, pictures: Sequence[Pixels]) -> list[TextPage]: ...


class Text(Enricher):
    """Lines with what they say, where they stand and how sure that is; the whole as plain text in reading order."""

    name: ClassVar[str] = "text"
    version: ClassVar[int] = 4
    concurrent: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("opencv-python-headless",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "engine": "rapidocr",  # or "tesseract"
        "detection": "ppocr_v6_det",  # catalogue names of the networks of rapidocr
        "recognition": "ppocr_v6_rec",
        "direction": "ppocr_cls",
        "languages": ("eng",),  # Tesseract's names of the languages that it reads
        "max_side": 2000,  # pixels of the longest side of the picture that text is read from
        "look_side": 448,  # pixels of the longest side of the first look for text
        "min_score": 0.5,  # lines that were read with less certainty are left out
        "max_lines": 500,  # lines that are kept of one picture
        "max_characters": 20_000,  # characters of plain text that are kept of one picture
    }

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Raises SettingInvalid for a value that a setting cannot have."""
        super().__init__(settings)
        if settings["engine"] not in ENGINES:
            raise SettingInvalid(f"enrichers.text.engine is {settings['engine']!r}; valid are: {', '.join(ENGINES)}")
        for name in ("max_side", "look_side"):
            if settings[name] < 32:
                raise SettingInvalid(f"enrichers.text.{name} is {settings[name]}; it must be at least 32 pixels")

    @property
    def form(self) -> Form:
        return Form(self.settings["max_side"])

    @property
    def max_batch(self) -> int:
        return 8

    @property
    def model(self) -> str:
        return str(self.settings["recognition"] if self.settings["engine"] == "rapidocr" else "tesseract")

    def weights(self) -> tuple[Weights, ...]:
        if self.settings["engine"] != "rapidocr":
            return ()
        names = (self.settings[part] for part in ("recognition", "detection", "direction"))
        return tuple(weights for name in names for weights in self.catalogue.weights(name))

    def versions(self) -> Mapping[str, str]:
        """With Tesseract, the program's version too; its language data have none."""
        from enrichers.tesseract import program_version

        program = {"tesseract": program_version()} if self.settings["engine"] == "tesseract" else {}
        return {**super().versions(), **program}

    def load(self, loader: Loader) -> None:
        """Raises SettingInvalid where Tesseract is asked for and cannot be used, and what the loader raises."""
        self._engine: Engine = self._tesseract() if self.settings["engine"] == "tesseract" else self._paddle(loader)

    def _paddle(self, loader: Loader) -> Engine:
        from enrichers.ppocr import PaddleEngine
        from enrichers.text_detection import TextDetector
        from enrichers.text_recognition import TextRecognizer, characters

        detection, recognition, direction = (
            loader.network(self.settings[part]) for part in ("detection", "recognition", "direction")
        )
        alphabet = characters(Path(loader.path(self.settings["recognition"])))
        recognizer = TextRecognizer(recognition, direction, alphabet)
        return PaddleEngine(TextDetector(detection), recognizer, self.settings["look_side"])

    def _tesseract(self) -> Engine:
        from enrichers.tesseract import TesseractEngine

        return TesseractEngine(self.settings["languages"])

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        pictures = [image.fitted(self.settings["max_side"]) for image in images]
        pages = self._engine.read(pictures)
        return [
            Result(self._answer(image, picture, page))
            for image, picture, page in zip(images, pictures, pages, strict=True)
        ]

    def _answer(self, image: Image, picture: Pixels, page: TextPage) -> dict[str, Any]:
        height, width = picture.shape[:2]
        lines = believed(page.lines, height, width, self.settings["min_score"])
        quads = np.array([line.quad for line in lines], np.float32).reshape(-1, 4, 2)
        places = reading_order(quads, page.rotation)
        text = plain_text(places, [line.text for line in lines])
        scale = image.width / picture.shape[1]
        kept = places[: self.settings["max_lines"]]
        return {
            "text": text[: self.settings["max_characters"]],
            "count": len(lines),
            "lines": [{**_line(lines[place.line], scale), "paragraph": place.paragraph} for place in kept],
            "omitted": len(places) - len(kept),
            "paragraphs": places[-1].paragraph + 1 if places else 0,
            "rotation": page.rotation if lines else 0,
            "language": language(text),
        }


def _line(line: TextLine, scale: float) -> dict[str, Any]:
    quad = line.quad * scale
    (left, top), (right, bottom) = quad.min(0), quad.max(0)
    return {
        "text": line.text,
        "score": round(line.score, 4),
        "box": [round(float(value), 1) for value in (left, top, right - left, bottom - top)],
        "polygon": [[round(float(value), 1) for value in corner] for corner in quad],
    }

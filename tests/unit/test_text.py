"""Finding and reading text."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from enrichers.catalogue import Catalogue
from enrichers.contract import Result
from enrichers.image import Facts, Image, Pixels
from enrichers.loading import ProcessLoader
from enrichers.text import Text
from enrichers.weights import ModelStore


def page(lines: list[str], size: int = 28, width: int = 700, background: str = "white") -> Pixels:
    canvas = Pillow.new("RGB", (width, 40 + len(lines) * (size + 16)), background)
    draw = ImageDraw.Draw(canvas)
    for index, line in enumerate(lines):
        draw.text((30, 20 + index * (size + 16)), line, fill="black", font=ImageFont.load_default(size))
    return np.asarray(canvas)


def as_image(pixels: Pixels, scale: int = 1) -> Image:
    height, width = pixels.shape[0] * scale, pixels.shape[1] * scale
    return Image(0, pixels, width, height, Facts("PNG", 1, "0", width, height))


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessLoader]:
    """The networks lie inside an installed package: nothing is fetched."""
    yield ProcessLoader(ModelStore(tmp_path_factory.mktemp("cache"), Catalogue.load(), offline=True), "cpu", 1)


@pytest.fixture(scope="module")
def text(loader: ProcessLoader) -> Text:
    enricher = Text(Text.defaults)
    enricher.load(loader)
    return enricher


def answers(enricher: Text, *images: Image) -> list[Mapping[str, Any]]:
    outcomes = enricher.enrich(images)
    assert all(isinstance(outcome, Result) for outcome in outcomes)
    return [outcome.answer for outcome in outcomes if isinstance(outcome, Result)]


def test_reads_a_page(text: Text) -> None:
    [answer] = answers(text, as_image(page(["Hello World", "Total 123.45"])))
    assert answer["text"] == "Hello World\nTotal 123.45"
    assert answer["count"] == 2
    assert all(line["score"] > 0.9 for line in answer["lines"])


def test_boxes_are_pixels_of_the_file(text: Text) -> None:
    [answer] = answers(text, as_image(page(["Hello World"]), scale=3))
    x, y, width, height = answer["lines"][0]["box"]
    assert 45 < x < 100  # the detector leaves a margin
    assert 30 < y < 100
    assert 300 < width < 600
    assert 50 < height < 150
    assert len(answer["lines"][0]["polygon"]) == 4


def test_no_text(text: Text) -> None:
    noise = np.random.default_rng(1).integers(90, 110, (300, 400, 3), dtype=np.uint8)
    [answer] = answers(text, as_image(noise))
    assert (answer["text"], answer["count"], answer["lines"]) == ("", 0, [])


def test_cuts_what_is_too_much(loader: ProcessLoader) -> None:
    enricher = Text({**Text.defaults, "max_lines": 1})
    enricher.load(loader)
    [answer] = answers(enricher, as_image(page(["first line", "second line"])))
    assert (answer["count"], len(answer["lines"]), answer["omitted"]) == (2, 1, 1)


def test_the_fingerprint_depends_on_settings() -> None:
    assert Text(Text.defaults).fingerprint({}) != Text({**Text.defaults, "min_score": 0.6}).fingerprint({})


def test_nothing_is_imported_before_load() -> None:
    import subprocess
    import sys

    code = "import sys, enrichers.text; print(sorted({'onnxruntime', 'rapidocr', 'onnx'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"

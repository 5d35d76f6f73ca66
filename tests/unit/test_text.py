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
from enrichers.errors import SettingInvalid
from enrichers.image import Facts, Image, Pixels
from enrichers.loading import ProcessLoader
from enrichers.tesseract import program_version
from enrichers.text import Text
from enrichers.text_detection import PAGE, Area, split
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


LINES = ["The quick brown fox jumps", "over the lazy dog and was", "never seen in the village"]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_reads_turned_pages(text: Text, rotation: int) -> None:
    upright = page(LINES)
    turned = np.ascontiguousarray(np.rot90(upright, -rotation // 90))  # clockwise
    [answer] = answers(text, as_image(turned))
    assert answer["text"] == "\n".join(LINES)
    assert answer["rotation"] == rotation
    assert answer["language"] == "en"
    assert answer["paragraphs"] == 1
    first = np.array(answer["lines"][0]["polygon"][0])  # where the first line begins
    height, width = upright.shape[:2]
    corner = {0: (25, 20), 90: (height - 20, 25), 180: (width - 25, height - 20), 270: (20, width - 25)}[rotation]
    assert np.abs(first - corner).max() < 15


def test_pictures_of_a_batch_do_not_mix(text: Text) -> None:
    pictures = [page(["alpha beta"]), page(["nothing"])[:10], page(["gamma delta"], background="lightblue")]
    found = [answer["text"] for answer in answers(text, *(as_image(picture) for picture in pictures))]
    assert (found[0], found[2]) == ("alpha beta", "gamma delta")


@pytest.mark.parametrize("word", ["ON", "GOD", "SECTOR", "6"])
def test_reads_a_picture_of_one_word_upright(text: Text, word: str) -> None:
    """Short words look alike both ways up; a picture of one is taken as upright."""
    canvas = Pillow.new("RGB", (20 + 18 * len(word), 40), "white")
    ImageDraw.Draw(canvas).text((8, 2), word, fill="black", font=ImageFont.load_default(28))
    [answer] = answers(text, as_image(np.asarray(canvas)))
    assert answer["text"] == word


def test_small_text_in_a_large_picture(text: Text) -> None:
    """Text that the first look cannot read is looked at closely."""
    scene = np.full((900, 1600, 3), 120, np.uint8)
    words = page(["small words here"], size=16, width=200)
    scene[700 : 700 + words.shape[0], 1200:1400] = words
    [answer] = answers(text, as_image(scene))
    assert answer["text"] == "small words here"
    x, y, _, _ = answer["lines"][0]["box"]
    assert 1210 < x < 1240
    assert 705 < y < 730


@pytest.mark.parametrize("settings", [{"engine": "abbyy"}, {"look_side": 1}, {"max_side": 0}])
def test_a_setting_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingInvalid):
        Text({**Text.defaults, **settings})


def test_a_page_is_looked_at_as_a_whole() -> None:
    look = np.zeros((320, 448), np.float32)
    for line in range(PAGE):
        look[20 + 30 * line : 24 + 30 * line, 40:200] = 0.9  # small print, some of which leaves no trace at this size
    _, areas = split(look, 640, 896)
    assert areas == [Area(slice(0, 640), slice(0, 896))]
    look[20:24] = 0
    _, areas = split(look, 640, 896)
    assert areas != [Area(slice(0, 640), slice(0, 896))]


def test_another_engine_is_another_fingerprint() -> None:
    tesseract = Text({**Text.defaults, "engine": "tesseract"})
    assert tesseract.weights() == ()
    assert tesseract.model == "tesseract"
    assert tesseract.fingerprint({}) != Text(Text.defaults).fingerprint({})


def test_another_tesseract_is_another_fingerprint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = set()
    for version in ("5.3.0", "5.5.1"):
        program = tmp_path / "tesseract"
        program.write_text(f"#!/bin/sh\necho tesseract {version}\necho ' leptonica-1.82.0'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        program_version.cache_clear()
        assert program_version() == f"tesseract {version}"
        found.add(Text({**Text.defaults, "engine": "tesseract"}).fingerprint({}))
        assert "tesseract" not in Text(Text.defaults).versions()
    program_version.cache_clear()
    assert len(found) == 2


@pytest.fixture
def tesseract() -> Text:
    enricher = Text({**Text.defaults, "engine": "tesseract"})
    try:
        enricher.load(None)  # type: ignore[arg-type]
    except SettingInvalid as error:
        pytest.skip(str(error))
    return enricher


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_tesseract_reads_turned_pages(tesseract: Text, rotation: int) -> None:
    upright = page(LINES * 4)  # it needs some text to find the turn
    [answer] = answers(tesseract, as_image(np.ascontiguousarray(np.rot90(upright, -rotation // 90))))
    assert answer["rotation"] == rotation
    assert answer["text"].replace("\n\n", "\n").splitlines() == LINES * 4
    first = np.array(answer["lines"][0]["polygon"][0])
    height, width = upright.shape[:2]
    corner = {0: (30, 25), 90: (height - 25, 30), 180: (width - 30, height - 25), 270: (25, width - 30)}[rotation]
    assert np.abs(first - corner).max() < 15


def test_without_tesseract_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pytesseract")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingInvalid, match="apt install tesseract-ocr"):
        Text({**Text.defaults, "engine": "tesseract"}).load(None)  # type: ignore[arg-type]


def test_tesseract_without_a_language(tesseract: Text) -> None:
    with pytest.raises(SettingInvalid, match="xyz"):
        Text({**Text.defaults, "engine": "tesseract", "languages": ["xyz"]}).load(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "rotation"), [("180", 180), ("L", 270), ("R", 90)])
def test_evaluation_turned_scans(text: Text, eval_data: Path, name: str, rotation: int) -> None:
    folder = eval_data / "ocr_samples"
    pixels = np.asarray(Pillow.open(folder / f"tess_phototest-rotated-{name}.png").convert("RGB"))
    [answer] = answers(text, as_image(pixels))
    gold = (folder / "tess_phototest.gold.txt").read_text().split()
    found = answer["text"].split()
    assert answer["rotation"] == rotation
    assert sum(word in found for word in gold) >= 0.9 * len(gold)

"""The figures of `enrichd evaluate text` and `properties`, and how labels are read."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from daemon.cli.evaluate import app
from daemon.evaluate.frame import LabelsInvalid
from daemon.evaluate.properties import read_labels, same, value_at
from daemon.evaluate.text import distance, measure_pages, measure_words, read_pages, read_words


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_distance(one: str, other: str, edits: int) -> None:
    assert distance(one, other) == distance(other, one) == edits


def test_words_without_punctuation_in_the_labels() -> None:
    figures = measure_words(["Stop", "dont"], ["STOP!", "dom't"])
    assert figures["exact"] == 0.5  # STOP! is right, since these labels leave punctuation out
    assert figures["cer"] == pytest.approx(1 / 8)
    assert figures["words"] == 2


def test_words_with_punctuation_in_the_labels() -> None:
    assert measure_words(["Stop!", "don't"], ["stop", "DON'T"])["exact"] == 0.5


def test_pages() -> None:
    figures = measure_pages(["Total: 5.00 Total", "Thank you"], ["TOTAL 5.00", "thank your all"])
    assert figures["word_recall"] == pytest.approx(4 / 6)  # the second Total and "you" are missing; 5.00 is two words
    assert figures["word_precision"] == pytest.approx(4 / 6)
    assert figures["token_recall"] == pytest.approx(3 / 5)  # "Total:" and "you" are missing
    assert figures["token_precision"] == pytest.approx(3 / 5)
    assert (figures["pages"], figures["words"]) == (2, 6)


def test_reads_words(tmp_path: Path) -> None:
    (tmp_path / "gt.tsv").write_text("a/1.png\tHello\nb.png\ttwo words\n")
    words = read_words(tmp_path / "gt.tsv")
    assert [(word.path.relative_to(tmp_path).as_posix(), word.text) for word in words] == [
        ("a/1.png", "Hello"),
        ("b.png", "two words"),
    ]


@pytest.mark.parametrize("content", ["", "a.png Hello\n", "a.png\tb\tc\n"])
def test_bad_word_labels(tmp_path: Path, content: str) -> None:
    (tmp_path / "gt.tsv").write_text(content)
    with pytest.raises(LabelsInvalid):
        read_words(tmp_path / "gt.tsv")


def test_reads_pages(tmp_path: Path) -> None:
    for name in ("img", "box"):
        (tmp_path / name).mkdir()
    Pillow.new("RGB", (4, 4)).save(tmp_path / "img" / "1.jpg")
    (tmp_path / "box" / "1.csv").write_text("1,1,2,1,2,2,1,2,NO. 3, MAIN STREET\n1,1,2,1,2,2,1,2,TOTAL\n\n")
    (tmp_path / "box" / "2.csv").write_text("its picture is missing")
    assert read_pages(tmp_path) == [(tmp_path / "img" / "1.jpg", "NO. 3, MAIN STREET\nTOTAL")]
    with pytest.raises(LabelsInvalid):
        read_pages(tmp_path / "img")


@pytest.mark.parametrize(
    ("label", "found", "right"),
    [
        ("", None, True),
        ("null", None, True),
        ("", 5, False),
        ("5", None, False),
        ("true", True, True),
        ("1", True, False),  # a yes is no number
        ("100", 100.9, True),  # within 1 %
        ("100", 102, False),
        ("-70.5", -70.5, True),
        ("x", 5, False),
        ("nikon", "NIKON ", True),
        ("2008-10-22 16:28:39", datetime(2008, 10, 22, 16, 28, 39), True),
        ("2008-10-22", datetime(2008, 10, 22, 16, 28, 39), False),
    ],
)
def test_same(label: str, found: Any, right: bool) -> None:
    assert same(label, found) is right


def test_value_at() -> None:
    answer = {"camera": {"make": "A"}, "colours": [{"name": "red"}], "location": None}
    assert value_at(answer, "camera.make") == "A"
    assert value_at(answer, "colours.0.name") == "red"
    assert value_at(answer, "colours.1.name") is None
    assert value_at(answer, "location.coordinates.0") is None


def test_property_labels(tmp_path: Path) -> None:
    (tmp_path / "l.tsv").write_text("# a remark\na.png\tformat\tPNG\na.png\tcamera\t\n")
    assert [(row.field, row.value) for row in read_labels(tmp_path, tmp_path / "l.tsv")] == [
        ("format", "PNG"),
        ("camera", ""),
    ]


def test_evaluate_properties(tmp_path: Path) -> None:
    Pillow.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.7")
    rows = [("a.png", "width", "40"), ("a.png", "format", "JPEG"), ("a.png", "colours.0.name", "red")]
    rows += [("b.pdf", "error", "UnsupportedFormat"), ("a.png", "error", "")]
    (tmp_path / "l.tsv").write_text("\n".join("\t".join(row) for row in rows))
    errors = tmp_path / "errors"
    arguments = [
        "properties",
        str(tmp_path),
        "--labels",
        str(tmp_path / "l.tsv"),
        "--json",
        "--save-errors",
        str(errors),
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert (figures["right"], figures["wrong"], figures["files"]) == (4, 1, 2)
    assert figures["fields"]["format"] == {"right": 0, "wrong": 1}
    assert len(list(errors.iterdir())) == 1


def test_evaluate_words(tmp_path: Path) -> None:
    from PIL import ImageDraw, ImageFont

    for word in ("Hello", "World"):
        canvas = Pillow.new("RGB", (150, 48), "white")
        ImageDraw.Draw(canvas).text((10, 4), word, fill="black", font=ImageFont.load_default(30))
        canvas.save(tmp_path / f"{word}.png")
    (tmp_path / "gt.tsv").write_text("Hello.png\thello\nWorld.png\tWorld\nmissing.png\tx\n")
    done = CliRunner().invoke(app, ["text", str(tmp_path / "gt.tsv"), "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["exact"] == pytest.approx(2 / 3)
    assert figures["words"] == 3

"""Reading order, paragraphs and language."""

import time

import numpy as np
import pytest

from enrichers.language import language
from enrichers.text_layout import plain_text, reading_order


def quad(left: float, top: float, width: float, height: float = 10) -> list[tuple[float, float]]:
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]


def read(lines: dict[str, list[tuple[float, float]]], rotation: int = 0, slant: float = 0) -> str:
    """The plain text of lines at given places, shuffled; `slant` turns the page, in degrees."""
    names = sorted(lines, key=lambda name: name[::-1])
    points = np.array([lines[name] for name in names], np.float64)
    turn = np.radians(slant)
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return plain_text(reading_order(points.astype(np.float32), rotation), names)


TABLE = {
    "coffee": quad(0, 0, 40),
    "2.50": quad(200, 1, 25),
    "tea": quad(0, 14, 20),
    "1.80": quad(200, 13, 25),
    "cake": quad(0, 28, 30),
    "3.10": quad(200, 28, 25),
}


@pytest.mark.parametrize("slant", [0, 4, -4])
def test_a_table_is_read_by_rows(slant: float) -> None:
    assert read(TABLE, slant=slant) == "coffee 2.50\ntea 1.80\ncake 3.10"


def test_columns_of_running_text_are_read_one_after_the_other() -> None:
    lines = {"title": quad(50, -40, 260, 16)}
    lines |= {f"left {row}": quad(0, 13 * row, 150) for row in range(4)}
    lines |= {f"right {row}": quad(180, 13 * row + 2, 150) for row in range(4)}
    left, right = ("\n".join(f"{side} {row}" for row in range(4)) for side in ("left", "right"))
    assert read(lines) == f"title\n\n{left}\n\n{right}"


def test_a_title_between_columns_divides_them() -> None:
    lines = {"title": quad(20, 60, 300, 12)}
    for part, top in (("upper", 0), ("lower", 90)):
        lines |= {f"{part} left {row}": quad(0, top + 13 * row, 150) for row in range(3)}
        lines |= {f"{part} right {row}": quad(180, top + 13 * row, 150) for row in range(3)}
    order = [line for line in read(lines).splitlines() if line]
    assert [order.index(f"{part} {row}") for part in ("upper left", "upper right") for row in range(3)] == list(
        range(6)
    )
    assert order.index("title") == 6
    assert order[7:] == [f"lower {side} {row}" for side in ("left", "right") for row in range(3)]


def test_three_columns() -> None:
    lines = {f"{column}{row}": quad(200 * column, 13 * row, 150) for column in range(3) for row in range(4)}
    assert read(lines).split() == [f"{column}{row}" for column in range(3) for row in range(4)]


def test_many_lines_take_little_time() -> None:
    """As many as are kept of one picture, each a row with a gap below it, half of them long."""
    lines = {f"line {row}": quad(0, 14 * row, 200 if row % 2 else 30) for row in range(500)}
    started = time.process_time()
    read(lines)
    assert time.process_time() - started < 2


def test_paragraphs() -> None:
    lines = {
        "Heading": quad(0, 0, 100, 20),  # larger
        "one": quad(0, 30, 100),
        "two": quad(0, 43, 90),
        "three": quad(0, 80, 95),  # after a gap
    }
    assert read(lines) == "Heading\n\none\ntwo\n\nthree"


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_turned_pages(rotation: int) -> None:
    turned = {}
    for name, corners in TABLE.items():
        points = np.array(corners)
        for _ in range(rotation // 90):
            points = np.stack([-points[:, 1], points[:, 0]], axis=1)  # clockwise, y runs down
        turned[name] = [tuple(point) for point in points]
    assert read(turned, rotation) == "coffee 2.50\ntea 1.80\ncake 3.10"


def test_no_lines() -> None:
    assert reading_order(np.zeros((0, 4, 2), np.float32)) == []
    assert plain_text([], []) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The quick brown fox jumps over the lazy dog and it is gone", "en"),
        ("Der schnelle Fuchs springt über den Hund und das ist nicht gut", "de"),
        ("Le renard saute par-dessus le chien et il est dans la maison", "fr"),
        ("El zorro salta sobre el perro y se va por la casa", "es"),
        ("De snelle vos is niet van de hond en het huis", "nl"),
        ("大連市中山区", "zh"),
        ("大連市中山区" * 5 + "の", "zh"),  # one kana among many signs can be a misreading
        ("これはテストです", "ja"),
        ("한국어 문장", "ko"),
        ("Это просто тест", "ru"),
        ("Це є тест", "uk"),
        ("Ένα απλό κείμενο", "el"),
        ("TOTAL 12.00 CASH 20.00 CHANGE", None),  # no function words
        ("Grace Hopper", None),
        ("the", None),  # too short
        ("12345", None),
        ("", None),
    ],
)
def test_language(text: str, expected: str | None) -> None:
    assert language(text) == expected

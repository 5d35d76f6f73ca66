"""Lines of text, and textures that are read as a letter or two."""

import numpy as np
import pytest

from enrichers.text_evidence import believed, different
from enrichers.text_layout import TextLine


def line(text: str, score: float, height: float = 20, width: float = 60) -> TextLine:
    return TextLine(
        text, score, np.array([[5, 5], [5 + width, 5], [5 + width, 5 + height], [5, 5 + height]], np.float32)
    )


@pytest.mark.parametrize(
    ("text", "score", "expected"),
    [
        ("STOP", 0.99, True),
        ("STOP", 0.7, True),
        ("★大", 0.8, False),
        ("***", 0.99, False),  # nothing that is read
        ("AAAAAA", 0.9, False),  # tiles of a roof: one letter again and again
        ("8", 0.96, True),  # a number on a shirt
        ("8", 0.9, False),
        ("TO", 0.92, True),
        ("TO", 0.85, False),
        ("110", 0.92, True),  # two different ones
        ("Belanti", 0.51, True),
        ("Belanti", 0.49, False),  # below the setting
        ("  ", 1.0, False),
    ],
)
def test_a_line_alone_needs_certainty_for_few_characters(text: str, score: float, expected: bool) -> None:
    assert bool(believed([line(text, score)], 480, 640, 0.5)) is expected


def test_on_a_page_short_lines_are_text() -> None:
    page = [line(text, 0.95) for text in ("Total", "Cash", "Change")]
    short = [line("x", 0.6), line("-", 0.7)]
    assert believed([*page, *short], 480, 640, 0.5) == [*page, *short]
    assert believed([*page[:2], *short], 480, 640, 0.5) == page[:2]
    assert believed([*page, line("x", 0.4)], 480, 640, 0.5) == page


def test_a_picture_of_one_word_is_believed() -> None:
    assert believed([line("of", 0.6, height=30, width=90)], 40, 100, 0.5)
    assert not believed([line("of", 0.6, height=30, width=90)], 400, 1000, 0.5)


def test_different_letters_and_digits() -> None:
    assert [different(text) for text in ("", "**", "aA", "A1", "三 三", "Über")] == [0, 0, 1, 2, 1, 4]

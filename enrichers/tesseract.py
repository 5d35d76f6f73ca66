"""Reads text with Tesseract, for the scripts that the default engine does not know."""

import functools
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from enrichers.errors import EnricherFailed, SettingInvalid
from enrichers.image import Pixels
from enrichers.text_layout import TextLine, TextPage

#: confidence in percent below which Tesseract's guess of the page's turn is not followed
TURN_CONFIDENCE = 2.0
#: height or width in pixels below which a picture is enlarged: Tesseract wants letters of 20 pixels and more
ENLARGE_BELOW = 1000
#: page segmentation mode: fully automatic, the turn of the page is found before
PAGE = 3


@functools.cache
def program_version() -> str:
    """What the program that is on the path says of its version, asked once a process; "" where there is none."""
    try:
        said = subprocess.run(["tesseract", "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (said.stdout or said.stderr).splitlines()
    return lines[0].strip() if lines else ""


class TesseractEngine:
    """Lines by Tesseract (the program, by way of pytesseract). One process a picture."""

    def __init__(self, languages: Sequence[str]) -> None:
        """`languages`: Tesseract's names, such as eng, deu, chi_sim. Raises SettingInvalid, telling what to install."""
        try:
            import pytesseract
        except ImportError:
            raise SettingInvalid(
                'enrichers.text.engine is "tesseract" and pytesseract is not installed; install the extra `tesseract`'
            ) from None
        if shutil.which(pytesseract.pytesseract.tesseract_cmd) is None:
            raise SettingInvalid(
                'enrichers.text.engine is "tesseract" and there is no program of that name on the path; '
                "install it (Debian and Ubuntu: apt install tesseract-ocr)"
            )
        known = pytesseract.get_languages(config="")
        if missing := [language for language in languages if language not in known]:
            raise SettingInvalid(
                f"Tesseract has no data for {', '.join(missing)} (it has {', '.join(known)}); "
                f"install them (Debian and Ubuntu: apt install {' '.join('tesseract-ocr-' + m for m in missing)})"
            )
        self._program = pytesseract
        self._languages = "+".join(languages)
        self._finds_turn = "osd" in known

    def read(self, pictures: Sequence[Pixels]) -> list[TextPage]:
        """The lines of each picture, in its pixels. Raises EnricherFailed where the program fails."""
        return [self._page(picture) for picture in pictures]

    def _page(self, picture: Pixels) -> TextPage:
        from PIL import Image

        turn = self._turn(picture)
        upright = np.ascontiguousarray(np.rot90(picture, turn // 90))
        enlarged = max(1, min(3, round(ENLARGE_BELOW / max(upright.shape[:2]))))
        page = Image.fromarray(upright)
        page = page.resize((page.width * enlarged, page.height * enlarged), Image.Resampling.BICUBIC)
        try:
            words = self._program.image_to_data(
                page, lang=self._languages, config=f"--psm {PAGE}", output_type=self._program.Output.DICT
            )
        except self._program.TesseractError as error:
            raise EnricherFailed(f"Tesseract failed: {error.message}") from None
        lines = [_line(line, enlarged) for line in _lines(words)]
        return TextPage([_turned_back(line, turn, upright.shape) for line in lines], turn)

    def _turn(self, picture: Pixels) -> int:
        """How far the page is turned clockwise: 0, 90, 180 or 270 degrees."""
        if not self._finds_turn:
            return 0
        from PIL import Image

        try:
            found = self._program.image_to_osd(Image.fromarray(picture), output_type=self._program.Output.DICT)
        except self._program.TesseractError:  # it says "too few characters" this way
            return 0
        sure = found["orientation_conf"] >= TURN_CONFIDENCE
        return int(found["orientation"]) % 360 if sure else 0


def _lines(words: Mapping[str, Sequence[Any]]) -> list[list[tuple[str, float, int, int, int, int]]]:
    """The words of each line: text, confidence in percent, left, top, width, height."""
    lines: dict[tuple[int, int, int], list[tuple[str, float, int, int, int, int]]] = {}
    for block, paragraph, line, text, confidence, *box in zip(
        *(words[key] for key in ("block_num", "par_num", "line_num", "text", "conf", "left", "top", "width", "height")),
        strict=True,
    ):
        if float(confidence) >= 0 and text.strip():
            left, top, width, height = (int(value) for value in box)
            lines.setdefault((block, paragraph, line), []).append((text, float(confidence), left, top, width, height))
    return list(lines.values())


def _line(words: Sequence[tuple[str, float, int, int, int, int]], enlarged: int) -> TextLine:
    left, top = min(word[2] for word in words), min(word[3] for word in words)
    right, bottom = max(word[2] + word[4] for word in words), max(word[3] + word[5] for word in words)
    quad = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32) / np.float32(enlarged)
    letters = sum(len(word[0]) for word in words)
    score = sum(len(word[0]) * word[1] for word in words) / letters / 100
    return TextLine(" ".join(word[0] for word in words), score, quad)


def _turned_back(line: TextLine, turn: int, upright: Sequence[int]) -> TextLine:
    """A line of the page that was turned upright, in the pixels of the picture as it is."""
    height, width = upright[:2]
    x, y = line.quad[:, 0], line.quad[:, 1]
    x, y = {0: (x, y), 90: (height - y, x), 180: (width - x, height - y), 270: (y, width - x)}[turn]
    return TextLine(line.text, line.score, np.stack([x, y], axis=1).astype(np.float32))

"""The edits that a search by picture has to survive: what people do to a picture before they look for its source."""

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from enrichers.image import Pixels

Random = np.random.Generator
Edit = Callable[[Pixels, Random], Pixels]

#: grey levels and colours of what the edits draw
WHITE, BLACK, GREY = (255, 255, 255), (20, 20, 20), (150, 150, 150)


def crop(share: float) -> Edit:
    """Keeps a window of the picture's form that has `share` of its area, at a random place."""

    def edit(pixels: Pixels, random: Random) -> Pixels:
        height, width = pixels.shape[:2]
        h, w = max(1, round(height * share**0.5)), max(1, round(width * share**0.5))
        top, left = int(random.integers(0, height - h + 1)), int(random.integers(0, width - w + 1))
        return pixels[top : top + h, left : left + w].copy()

    return edit


def turn(degrees: float) -> Edit:
    """Turns counter-clockwise. Quarter turns are exact; others keep the frame, so that corners are lost and black."""

    def edit(pixels: Pixels, random: Random) -> Pixels:
        if degrees % 90 == 0:
            return np.ascontiguousarray(np.rot90(pixels, round(degrees / 90)))
        height, width = pixels.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
        return np.asarray(cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_CUBIC), dtype=np.uint8)

    return edit


def mirror(pixels: Pixels, random: Random) -> Pixels:
    return np.ascontiguousarray(pixels[:, ::-1])


def jpeg(quality: int) -> Edit:
    """Through JPEG at `quality` (libjpeg's scale, 1 to 100)."""

    def edit(pixels: Pixels, random: Random) -> Pixels:
        _, data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)

    return edit


def shrink(factor: float) -> Edit:
    """Both sides times `factor`."""

    def edit(pixels: Pixels, random: Random) -> Pixels:
        height, width = pixels.shape[:2]
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    return edit


def brightness(factor: float) -> Edit:
    """Every channel times `factor`, clipped."""

    def edit(pixels: Pixels, random: Random) -> Pixels:
        return np.asarray(np.clip(pixels.astype(np.float32) * factor, 0, 255), dtype=np.uint8)

    return edit


def saturation(factor: float) -> Edit:
    """The distance of each pixel's colour from its own grey (Rec. 601 luma) times `factor`, clipped."""

    def edit(pixels: Pixels, random: Random) -> Pixels:
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None].astype(np.float32)
        return np.asarray(np.clip(grey + (pixels - grey) * factor, 0, 255), dtype=np.uint8)

    return edit


def banner(share: float) -> Edit:
    """A banner with two lines of text over `share` of the picture, at the top or the bottom."""

    def edit(pixels: Pixels, random: Random) -> Pixels:
        height, width = pixels.shape[:2]
        tall = max(1, round(height * share))
        strip = np.full((tall, width, 3), (200, 30, 40), dtype=np.uint8)
        write(strip, ["WHEN YOU SEE IT", "you cannot unsee it any more"], WHITE)
        result = pixels.copy()
        if random.random() < 0.5:
            result[:tall] = strip
        else:
            result[height - tall :] = strip
        return result

    return edit


def frame(share: float) -> Edit:
    """A plain frame around the picture, as wide as `share` of its longer side."""

    def edit(pixels: Pixels, random: Random) -> Pixels:
        wide = max(1, round(max(pixels.shape[:2]) * share))
        colour = [WHITE, BLACK, (120, 80, 40)][int(random.integers(3))]
        return np.asarray(cv2.copyMakeBorder(pixels, wide, wide, wide, wide, cv2.BORDER_CONSTANT, value=colour))

    return edit


def screenshot(pixels: Pixels, random: Random) -> Pixels:
    """A page of 1280 × 960 with a bar, a heading and text, in which the picture takes about a quarter of the area."""
    page = np.full((960, 1280, 3), 255, dtype=np.uint8)
    page[:64] = (235, 236, 240)
    page[20:44, 140:900] = 255
    for number in range(3):
        cv2.circle(page, (30 + 30 * number, 32), 8, [(250, 95, 90), (250, 190, 50), (60, 200, 80)][number], -1)
    height, width = pixels.shape[:2]
    scale = (0.25 * page.shape[0] * page.shape[1] / (height * width)) ** 0.5
    scale = min(scale, 760 / width, 640 / height)
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    left, top = int(random.integers(40, 1280 - 380 - w)), int(random.integers(130, 940 - h))
    cv2.putText(page, "The picture of the day", (left, 108), cv2.FONT_HERSHEY_SIMPLEX, 1.1, BLACK, 2, cv2.LINE_AA)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    page[top : top + h, left : left + w] = cv2.resize(pixels, (w, h), interpolation=method)
    for line in range(130, 930, 26):
        words = "lorem ipsum dolor sit amet"[: int(random.integers(17, 27))]
        cv2.putText(page, words, (left + w + 30, line), 0, 0.6, GREY, 1, cv2.LINE_AA)
        if line > top + h + 20:
            cv2.putText(page, "consectetur adipiscing elit sed do", (left, line), 0, 0.6, GREY, 1, cv2.LINE_AA)
    return page


def write(strip: Pixels, lines: list[str], colour: tuple[int, int, int]) -> None:
    """Writes the lines into the strip, each as large as fits."""
    height, width = strip.shape[:2]
    for number, line in enumerate(lines):
        (wide, tall), _ = cv2.getTextSize(line, cv2.FONT_HERSHEY_DUPLEX, 1.0, 2)
        scale = min(0.9 * width / wide, 0.6 * height / len(lines) / tall)
        x = round((width - wide * scale) / 2)
        y = round((number + 0.5) * height / len(lines) + tall * scale / 2)
        cv2.putText(strip, line, (x, y), cv2.FONT_HERSHEY_DUPLEX, scale, colour, max(1, round(2 * scale)), cv2.LINE_AA)


#: the edits, by the names under which their recall is reported; strengths are fixed so that figures can be compared
EDITS: Mapping[str, Edit] = {
    "crop_50": crop(0.50),
    "crop_25": crop(0.25),
    "turn_5": turn(5),
    "turn_90": turn(90),
    "turn_180": turn(180),
    "mirror": mirror,
    "jpeg_30": jpeg(30),
    "half": shrink(0.5),
    "quarter": shrink(0.25),
    "brighter": brightness(1.4),
    "darker": brightness(0.6),
    "vivid": saturation(1.4),
    "pale": saturation(0.6),
    "grey": saturation(0.0),
    "banner": banner(0.20),
    "frame": frame(0.08),
    "screenshot": screenshot,
}

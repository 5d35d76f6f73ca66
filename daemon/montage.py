"""Contact sheets of faces."""

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

#: side of a face on the sheet, and height of the line below it, in pixels
SIDE, LINE = 112, 16


def montage(faces: Sequence[tuple[bytes, str]], columns: int | None = None) -> Image.Image:
    """JPEG thumbnails, each with a line of text, on one RGB sheet, row by row."""
    columns = columns or max(1, min(12, math.ceil(math.sqrt(len(faces)))))
    rows = max(1, math.ceil(len(faces) / columns))
    sheet = Image.new("RGB", (columns * SIDE, rows * (SIDE + LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    for number, (jpeg, text) in enumerate(faces):
        x, y = number % columns * SIDE, number // columns * (SIDE + LINE)
        try:
            face = Image.open(io.BytesIO(jpeg)).convert("RGB")
        except OSError:  # a face without a picture keeps its place
            face = Image.new("RGB", (SIDE, SIDE), "lightgrey")
        face.thumbnail((SIDE - 4, SIDE - 4))
        sheet.paste(face, (x + (SIDE - face.width) // 2, y + (SIDE - face.height) // 2))
        draw.text((x + 3, y + SIDE), text[:20], fill="black", font=font)
    return sheet

"""Photos to measure with: the evaluation data's where it is set, else made from the pictures that packages carry."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

#: seed of the crops
SEED = 7


def photos(folder: Path, count: int, images: Path | None) -> list[Path]:
    """`count` JPEG files: those of `images`, of coco/ in the evaluation data, or made into `folder`; repeated with a
    changed comment, so that each file is different, where there are fewer."""
    data = os.environ.get("ENRICHD_EVAL_DATA")
    source = images or (Path(data) / "coco" if data else None)
    found = sorted(path for path in source.rglob("*.jpg")) if source else _made(folder, count)
    if not found:
        raise SystemExit(f"There are no .jpg files below {source}.")
    chosen = found[:count]
    for number in range(len(chosen), count):
        original = found[number % len(found)].read_bytes()
        copy = folder / f"copy-{number}.jpg"
        comment = str(number).encode()  # a COM segment right after the start of the file changes nothing that is seen
        copy.write_bytes(original[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + original[2:])
        chosen.append(copy)
    return chosen


def _made(folder: Path, count: int) -> list[Path]:
    """Crops of the packages' sample photos, longest side 480 to 1280 pixels."""
    from skimage import data

    samples = [getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")]
    rng = np.random.default_rng(SEED)
    made = []
    for number in range(min(count, 80)):
        picture = Image.fromarray(samples[number % len(samples)])
        share = rng.uniform(0.6, 1.0)
        width, height = int(picture.width * share), int(picture.height * share)
        left, top = int(rng.integers(picture.width - width + 1)), int(rng.integers(picture.height - height + 1))
        crop = picture.crop((left, top, left + width, top + height))
        scale = rng.integers(480, 1281) / max(crop.size)
        path = folder / f"photo-{number:03}.jpg"
        crop.resize((round(crop.width * scale), round(crop.height * scale))).save(path, quality=90)
        made.append(path)
    return made

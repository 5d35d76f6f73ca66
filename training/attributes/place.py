"""Makes enrichers/place.tsv: how much each thing in a picture speaks for outdoors or indoors.

Reads captions of photos (caption_texts/captions.json of the evaluation data, COCO val2017, CC BY 4.0; no pictures). A
photo whose captions name a place, and only places of one kind, is a labelled photo; the weight of a thing is its log
odds among the photos whose captions name it, smoothed.

    python training/attributes/place.py CAPTIONS_JSON enrichers/imagenet.tsv > enrichers/place.tsv
"""

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from daemon.evaluate.implied_labels import taken_outdoors
from enrichers.coco import NAMES

#: photos that every thing is thought to have been seen in beside the real ones, half of either kind
SMOOTHING = 4.0

#: fewest photos whose captions name a thing that gets a weight of its own
FEWEST = 4

#: words of captions for COCO's and ImageNet's names, where these differ
WORDS = {
    "tv": "television",
    "cell phone": "phone",
    "airplane": "plane",
    "potted plant": "plant",
    "sports ball": "ball",
    "skis": "ski",
    "hair drier": "hair dryer",
}


def words(caption: str) -> str:
    """Lower-case words with single spaces, one at each end; plurals in -s lose it."""
    found = re.findall(r"[a-z]+", caption.lower())
    singular = (word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word for word in found)
    return f" {' '.join(singular)} "


def weights(things: Iterable[str], photos: list[tuple[str, bool]]) -> dict[str, float]:
    """Log odds for outdoors of each thing that enough photos name."""
    seen: dict[str, Counter[bool]] = {}
    share = sum(outside for _, outside in photos) / len(photos)
    found = {}
    for thing in things:
        word = words(WORDS.get(thing, thing))
        count = seen[thing] = Counter(outside for text, outside in photos if word in text)
        if count.total() >= FEWEST:
            # as if both kinds were equally frequent among the photos
            out, within = count[True] / share / 2, count[False] / (1 - share) / 2
            found[thing] = math.log((out + SMOOTHING / 2) / (within + SMOOTHING / 2))
    return found


def main(captions: Path, classes: Path) -> None:
    told = json.loads(captions.read_text())
    photos = [
        (" ".join(map(words, texts)), outside)
        for texts in told.values()
        if (outside := taken_outdoors(" ".join(texts))) is not None
    ]
    rows = [line.split("\t") for line in classes.read_text().splitlines()]
    names = {row[0] for row in rows} | {word for row in rows for word in row[2].split("|") if word}
    for thing, weight in sorted(weights(names | set(NAMES), photos).items()):
        if abs(weight) >= 0.3:
            print(thing, f"{weight:.2f}", sep="\t")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

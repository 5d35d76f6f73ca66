"""`enrichd evaluate search`: does an edited picture find the image it was made from, among all others?"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from daemon.config import Config
from daemon.evaluate.edits import EDITS
from daemon.evaluate.frame import (
    LabelsInvalid,
    Options,
    as_image,
    images_below,
    load_enrichers,
    progress,
    report,
    with_options,
)
from daemon.search import Gallery, query
from enrichers.contract import Result
from enrichers.embedders import unpack_regions
from enrichers.errors import EnrichdError
from enrichers.image import Image, Pixels
from enrichers.keypoints import Keypoints
from enrichers.similarity import Similarity

#: longest side of the pictures that are edited
SIDE = 1600

#: matches asked for: recall is counted at 1 and at 5
COUNT = 5


@dataclass(frozen=True)
class Looked:
    """One edited picture that was searched for."""

    edit: str
    place: int | None  #: of the image it was made from among the matches, 0 the first; None: not among them


def register(app: typer.Typer) -> None:
    app.command("search")(search)


@with_options
def search(
    options: Options,
    images: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of images; no labels needed.")],
) -> None:
    """Find images by edited copies of themselves: crops, turns, recoloured ones, banners, frames, screenshots.

    Every image is edited in each way; --limit takes fewer images to edit, all others stay as distractors.
    """
    report("search", evaluate(images_below(images), options), options)


def evaluate(paths: Sequence[Path], options: Options) -> dict[str, Any]:
    """Recall over all edits and by edit. Raises LabelsInvalid where fewer than two images can be read."""
    config = options.config("similarity")
    enricher = next(e for e in load_enrichers(["similarity"], config) if isinstance(e, Similarity))
    known = [*described(paths, enricher, config)]
    if len(known) < 2:
        raise LabelsInvalid("A search needs at least two images that can be read.")
    kept = [path for path, _ in known]
    answers = [answer for _, answer in known]
    vectors = np.stack([answer["vector"] for answer in answers])
    regions = np.stack([unpack_regions(answer["regions"], vectors.shape[1]) for answer in answers])
    gallery = Gallery(vectors, regions, lambda row: keypoints_of(answers[row]))
    chosen = options.pick(range(len(kept)))
    looked: list[Looked] = []
    started = time.perf_counter()
    for row in progress(chosen, len(chosen), "search"):
        picture = decoded(kept[row], SIDE, config).pixels
        for number, (name, edit) in enumerate(EDITS.items()):
            edited = edit(picture, np.random.default_rng([options.seed, row, number]))
            matches = gallery.search(query(edited, enricher.embedder), COUNT)
            place = next((at for at, match in enumerate(matches) if match.index == row), None)
            looked.append(Looked(name, place))
            if place != 0 and options.save_errors:
                save(options.save_errors, name, edited, kept[row], kept[matches[0].index])
    seconds = time.perf_counter() - started
    return {
        **recalls(looked),
        "images": len(kept),
        "queries": len(looked),
        "ms_a_query": 1000 * seconds / len(looked),
        "edits": {name: recalls([found for found in looked if found.edit == name]) for name in EDITS},
    }


def described(paths: Sequence[Path], enricher: Similarity, config: Config) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The images that can be read, each file's bytes once, with what the similarity enricher says of them."""
    seen: set[str] = set()
    batch: list[tuple[Path, Image]] = []
    for path in progress(paths, len(paths), "similarity"):
        try:
            image = decoded(path, enricher.form.max_side, config)
        except (EnrichdError, OSError):
            continue
        if image.facts.sha256 not in seen:
            seen.add(image.facts.sha256)
            batch.append((path, image))
        if len(batch) == enricher.max_batch:
            yield from answers_of(batch, enricher)
            batch = []
    if batch:
        yield from answers_of(batch, enricher)


def answers_of(batch: Sequence[tuple[Path, Image]], enricher: Similarity) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    outcomes = enricher.enrich([image for _, image in batch])
    for (path, _), outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, Result):
            yield path, outcome.answer


def decoded(path: Path, max_side: int | None, config: Config) -> Image:
    from enrichers.decode import decode

    limits = config.images
    return as_image(0, *decode(path, max_side=max_side, max_pixels=limits.max_pixels, max_bytes=limits.max_bytes))


def keypoints_of(answer: Mapping[str, Any]) -> Keypoints:
    return Keypoints.unpack(answer["keypoints"]["points"], answer["keypoints"]["descriptors"])


def recalls(looked: Sequence[Looked]) -> dict[str, float]:
    return {
        f"recall_at_{count}": sum(found.place is not None and found.place < count for found in looked)
        / max(len(looked), 1)
        for count in (1, COUNT)
    }


def save(folder: Path, edit: str, edited: Pixels, source: Path, found: Path) -> None:
    """Writes the edited picture, named by the edit, the image it was made from and the one that was found."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{edit}-{source.stem}-found-{found.stem}.jpg"), edited[:, :, ::-1])

"""`enrichd evaluate faces`: are two photos of one person? Labeled Faces in the Wild's protocol, from whole photos."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from daemon.evaluate import frame
from enrichers.contract import Face, Result, Vector
from enrichers.image import Image

#: false accept rate at which the true accept rate is reported
FAR = 0.001

#: images that the time is measured on, with one thread
TIMED = 16


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photos, whether they show one person, and the fold they belong to."""

    first: Path
    second: Path
    same: bool
    fold: int


@dataclass(frozen=True, slots=True)
class Verification:
    """How well pairs are told apart. `wrong` are the indices of the pairs that were not."""

    accuracy: float  #: mean over the folds
    std: float  #: standard deviation over the folds
    tar_at_far: float  #: share of same pairs accepted where no more than FAR of the different ones are
    threshold: float  #: mean over the folds
    wrong: tuple[int, ...]


def read_pairs(file: Path, people: Path) -> list[Pair]:
    """The pairs of a list in the format of LFW's `pairs.txt`: folds and pairs of each kind a fold; then, fold by fold,
    `name n m` for the same person, `name n other m` for two. Photos are `people/name/name_000n.jpg`.
    Raises LabelsInvalid naming the line that is wrong or the photo that is missing."""
    try:
        head, *lines = [line.split() for line in file.read_text("utf-8").splitlines() if line.strip()]
        folds, size = (int(word) for word in head) if len(head) == 2 else (1, (len(lines) + 1) // 2)
    except (OSError, ValueError) as error:
        raise frame.LabelsInvalid(f"{file} is no list of pairs: {error}") from None
    if folds < 1 or len(lines) != 2 * folds * size:
        raise frame.LabelsInvalid(f"{file}: its first line promises {2 * folds * size} pairs, and it has {len(lines)}")
    pairs = []
    for index, words in enumerate(lines):
        if len(words) not in (3, 4) or not all(word.isdigit() for word in (words[1], words[-1])):
            raise frame.LabelsInvalid(f"{file}: no pair in line {index + 2}: {' '.join(words)}")
        first, second = (
            _photo(people, words[0], words[1]),
            _photo(people, words[-2 if len(words) == 4 else 0], words[-1]),
        )
        pairs.append(Pair(first, second, len(words) == 3, index // (2 * size)))
    return pairs


def _photo(people: Path, name: str, number: str) -> Path:
    path = people / name / f"{name}_{int(number):04d}.jpg"
    if not path.is_file():
        raise frame.LabelsInvalid(f"The list of pairs names {path}, which does not exist")
    return path


def most_central(faces: Sequence[Face], width: int, height: int) -> Face | None:
    """The face that a photo of one person is of: large and near the middle. `width` and `height` are the photo's."""

    def worth(face: Face) -> float:
        x, y, w, h = face.box
        off = np.hypot((x + w / 2) / width - 0.5, (y + h / 2) / height - 0.5)
        return float(np.sqrt(w * h / (width * height)) - off)

    return max(faces, key=worth, default=None)


def verify(similarities: NDArray[np.floating], same: NDArray[np.bool_], folds: NDArray[np.integer]) -> Verification:
    """LFW's protocol ("image-restricted"): for each fold, the threshold that is best on the others decides.

    `similarities` (n,) is higher for more alike; NaN, a photo without a face, is always wrong. With a single fold its
    own best threshold decides.
    """
    known = ~np.isnan(similarities)
    accuracies, thresholds, wrong = [], [], []
    for fold in np.unique(folds):
        here = folds == fold
        train = known & (here if here.all() else ~here)
        threshold = _best_threshold(similarities[train], same[train])
        right = known & ((similarities >= threshold) == same)
        accuracies.append(right[here].mean())
        thresholds.append(threshold)
        wrong += np.flatnonzero(here & ~right).tolist()
    return Verification(
        float(np.mean(accuracies)),
        float(np.std(accuracies)),
        _tar_at_far(similarities, same, known),
        float(np.mean(thresholds)),
        tuple(wrong),
    )


def _best_threshold(similarities: NDArray[np.floating], same: NDArray[np.bool_]) -> float:
    """Where most pairs are told right; midway between the two neighbouring similarities."""
    if not len(similarities):
        return 0.0
    order = np.argsort(-similarities, kind="stable")
    values = similarities[order]
    gain = np.concatenate([[0], np.cumsum(np.where(same[order], 1, -1))])
    cut = int(gain.argmax())
    above = values[cut - 1] if cut else values[0] + 1.0
    below = values[cut] if cut < len(values) else values[-1] - 1.0
    return float((above + below) / 2)


def _tar_at_far(similarities: NDArray[np.floating], same: NDArray[np.bool_], known: NDArray[np.bool_]) -> float:
    others = np.sort(similarities[known & ~same])[::-1]
    allowed = int(FAR * (~same).sum())
    threshold = others[allowed] if allowed < len(others) else -np.inf
    return float((known & same & (similarities > threshold)).sum() / max(1, same.sum()))


def cosine(a: Vector | None, b: Vector | None) -> float:
    """NaN where one is missing."""
    if a is None or b is None:
        return float("nan")
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def figures(pairs: Sequence[Pair], vectors: Mapping[Path, Vector | None]) -> tuple[dict[str, Any], Verification]:
    """What the command prints of pairs and the vector of each photo, None where no face was found."""
    similarities = np.array([cosine(vectors[p.first], vectors[p.second]) for p in pairs])
    same, folds = np.array([p.same for p in pairs]), np.array([p.fold for p in pairs])
    verified = verify(similarities, same, folds)
    return {
        "accuracy": verified.accuracy,
        "std": verified.std,
        "tar_at_far_0_001": verified.tar_at_far,
        "pairs": len(pairs),
        "undetected": sum(vector is None for vector in vectors.values()),
        "photos": len(vectors),
        "threshold": verified.threshold,
    }, verified


def evaluate(people: Path, pairs_file: Path, options: frame.Options) -> dict[str, Any]:
    pairs = options.pick(read_pairs(pairs_file, people))
    paths = sorted({path for pair in pairs for path in (pair.first, pair.second)})
    changes = {"embedding": options.model} if options.model else {}
    config = frame.Options(device=options.device).config("faces", changes)
    vectors: dict[Path, Vector | None] = {}
    timed: list[Image] = []
    for path, image, outcomes in frame.run_enrichers(["faces"], paths, config):
        outcome = outcomes["faces"]
        face = None
        if image is not None and isinstance(outcome, Result):
            face = most_central(outcome.faces, image.width, image.height)
            if len(timed) < TIMED:
                timed.append(image)
        vectors[path] = next(iter(face.embeddings.values())) if face else None
    result, verified = figures(pairs, vectors)
    result["ms_an_image_one_thread"] = _milliseconds(timed, changes)
    if options.save_errors:
        _save(options.save_errors, pairs, verified, vectors)
    return result


def _milliseconds(images: Sequence[Image], changes: Mapping[str, Any]) -> float | None:
    """Milliseconds that the faces enricher takes for a decoded image, with one thread on the CPU, after warming up."""
    if not images:
        return None
    config = frame.Options(device="cpu").config("faces", changes)
    config = config.model_copy(update={"pipeline": config.pipeline.model_copy(update={"threads": 1})})
    (enricher,) = frame.load_enrichers(["faces"], config)
    enricher.enrich(images)
    begin = time.perf_counter()
    enricher.enrich(images)
    return (time.perf_counter() - begin) * 1000 / len(images)


def _save(folder: Path, pairs: Sequence[Pair], verified: Verification, vectors: Mapping[Path, Vector | None]) -> None:
    """A picture of each wrong pair, the two photos side by side."""
    from PIL import Image as Canvas
    from PIL import ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    for index in verified.wrong:
        pair = pairs[index]
        likeness = cosine(vectors[pair.first], vectors[pair.second])
        sheet = Canvas.new("RGB", (516, 280), "white")
        for left, path in ((0, pair.first), (260, pair.second)):
            with Canvas.open(path) as photo:
                sheet.paste(photo.convert("RGB").resize((256, 256)), (left, 0))
        kind = "one person" if pair.same else "two people"
        found = (
            "no face found" if np.isnan(likeness) else f"similarity {likeness:.3f}, threshold {verified.threshold:.3f}"
        )
        ImageDraw.Draw(sheet).text((4, 260), f"{kind}: {found}", fill="black")
        sheet.save(folder / f"{pair.first.stem}-{pair.second.stem}.jpg", quality=90)


def register(app: typer.Typer) -> None:
    @app.command("faces")
    @frame.with_options
    def faces(
        options: frame.Options,
        people: Annotated[
            Path, typer.Argument(exists=True, file_okay=False, help="A folder with one folder a person.")
        ],
        pairs: Annotated[Path, typer.Option("--pairs", exists=True, dir_okay=False, help="LFW's list of pairs.")],
    ) -> None:
        """Whether two photos show one person, from whole photos (the protocol of Labeled Faces in the Wild)."""
        with frame.refusals():
            frame.report("faces", evaluate(people, pairs, options), options)

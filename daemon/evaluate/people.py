"""Labelled people: a folder of photos a person, and the faces that the faces enricher finds on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.clustering import Faces
from daemon.evaluate.frame import IMAGE_SUFFIXES, LabelsInvalid, Options, run_enrichers
from enrichers.contract import Face, Result

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Photo:
    """One photo: whom its folder names, the face that is theirs, and the faces of others on it."""

    path: Path
    person: str
    sha256: str
    main: Face | None  #: None where no face was found
    others: tuple[Face, ...]


@dataclass(frozen=True)
class People:
    """The photos, and their faces as clustering sees them: first those with a label, then the others."""

    model: str
    photos: tuple[Photo, ...]
    faces: Faces
    label: Ints  #: (n,) person's number of each face, -1 for faces without a label


def photos_of(folder: Path, options: Options) -> list[tuple[Path, str]]:
    """The photos below `folder` with the names of their folders. Raises LabelsInvalid if there is none."""
    found = [
        (path, path.parent.name)
        for path in sorted(folder.glob("*/*"))
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    ]
    if not found:
        raise LabelsInvalid(f"{folder} holds no folders with photos, one folder a person.")
    return options.pick(found)


def read(labelled: Sequence[tuple[Path, str]], options: Options) -> People:
    """Runs the faces enricher on whole photos. The face of the person is the one nearest to the middle of the photo,
    measured in its own size."""
    photos: list[Photo] = []
    settings = {"embedding": options.model} if options.model else {}
    config = Options(device=options.device).config("faces", settings)
    for (path, person), evaluated in zip(
        labelled, run_enrichers(["faces"], [path for path, _ in labelled], config), strict=True
    ):
        outcome = evaluated.outcomes["faces"]
        faces = outcome.faces if isinstance(outcome, Result) else ()
        image = evaluated.image
        if image is None or not faces:
            photos.append(Photo(path, person, str(path), None, ()))
            continue
        middle = np.array([image.width / 2, image.height / 2])
        main = min(range(len(faces)), key=lambda row: far(faces[row], middle))
        others = tuple(face for row, face in enumerate(faces) if row != main)
        photos.append(Photo(path, person, image.facts.sha256, faces[main], others))
    return arranged(photos)


def far(face: Face, middle: NDArray[np.float64]) -> float:
    """How far a face's box is from a point, in widths of the box."""
    x, y, width, height = face.box
    return float(np.hypot(*(np.array([x + width / 2, y + height / 2]) - middle)) / max(width, height, 1.0))


def arranged(photos: Sequence[Photo]) -> People:
    """Photos → the arrays of their faces. Raises LabelsInvalid where there is no face at all."""
    names = {name: number for number, name in enumerate(dict.fromkeys(photo.person for photo in photos))}
    shas = {sha: number for number, sha in enumerate(dict.fromkeys(photo.sha256 for photo in photos))}
    mains = [(photo.main, photo.person, photo.sha256) for photo in photos if photo.main is not None]
    rest = [(face, photo.sha256) for photo in photos for face in photo.others]
    everything = [face for face, _, _ in mains] + [face for face, _ in rest]
    if not everything:
        raise LabelsInvalid("No face was found on any photo.")
    model = sorted(everything[0].embeddings)[0]
    vectors = np.stack([face.embeddings[model] for face in everything]).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return People(
        model=model,
        photos=tuple(photos),
        faces=Faces(
            vectors=vectors,
            quality=np.array([face.quality.get("value", 1.0) for face in everything], dtype=np.float32),
            photo=np.array([shas[sha] for sha in [m[2] for m in mains] + [r[1] for r in rest]], dtype=np.int64),
        ),
        label=np.array([names[person] for _, person, _ in mains] + [-1] * len(rest), dtype=np.int64),
    )

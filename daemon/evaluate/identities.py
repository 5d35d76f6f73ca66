"""`enrichd evaluate identities`: whether faces are grouped into the people whose folders they lie in."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from daemon.calibration import Calibrations
from daemon.clustering import MIN_QUALITY, Constraints, Faces, cluster
from daemon.evaluate import frame
from daemon.evaluate.frame import Options
from daemon.evaluate.people import People, photos_of, read
from daemon.scores import agreement

Ints = NDArray[np.int64]

Folder = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A folder of photos a person.")]
Peers = Annotated[bool, typer.Option("--peers", help="Also other methods, each at its best setting on this very data.")]
Halves = Annotated[
    bool, typer.Option("--halves", help="Also calibrate on one half of the people and report the other, both ways.")
]


def register(app: typer.Typer) -> None:
    app.command("identities")(identities)


@frame.with_options
def identities(
    options: Options,
    people: Folder,
    peers: Peers = False,
    halves: Halves = False,
) -> None:
    """Measure how faces of whole photos are grouped into people."""
    found = read(photos_of(people, options), options)
    started = time.perf_counter()
    labels = cluster(
        found.faces, Calibrations.load(options.config().identities.calibration).of(found.model), Constraints()
    )
    figures = {**judged(found, labels), "seconds": round(time.perf_counter() - started, 3), "model": found.model}
    if halves:
        figures["halves"] = by_halves(found, options.seed)
    if peers:
        figures["peers"] = by_peers(found)
    frame.report("identities", figures, options)
    if options.save_errors:
        save_mixed(found, labels, options.save_errors)


def judged(found: People, labels: Ints) -> dict[str, Any]:
    """The figures over the labelled photos. A photo without a face, or whose face is too poor to join anybody, is left
    out of `coverage` and counts as a cluster of its own in all other figures."""
    named = found.label >= 0
    people, clusters = found.label[named], labels[named]
    sizes = np.bincount(labels)
    left_out = (found.faces.quality[named] < MIN_QUALITY) & (sizes[clusters] == 1)
    missing = [photo for photo in found.photos if photo.main is None]
    numbers = {photo.person: number for photo, number in zip(with_face(found), people, strict=True)}
    for photo in missing:
        numbers.setdefault(photo.person, len(numbers) + len(found.photos))
    people = np.concatenate((people, [numbers[photo.person] for photo in missing])).astype(np.int64)
    clusters = np.concatenate((clusters, labels.max() + 1 + np.arange(len(missing)))).astype(np.int64)
    return {
        **asdict(agreement(people, clusters)),
        "coverage": 1.0 - (len(missing) + int(left_out.sum())) / len(found.photos),
        "clusters": len(np.unique(clusters)),
        "people": len(np.unique(people)),
        "photos": len(found.photos),
        "other_faces": int((~named).sum()),
    }


def with_face(found: People) -> list[Any]:
    """The photos with a face, in the order of the labelled faces."""
    return [photo for photo in found.photos if photo.main is not None]


def subset(found: People, rows: NDArray[np.bool_]) -> tuple[Faces, Ints]:
    """Some of the faces, and whose they are."""
    faces = Faces(np.ascontiguousarray(found.faces.vectors[rows]), found.faces.quality[rows], found.faces.photo[rows])
    return faces, found.label[rows]


def by_halves(found: People, seed: int) -> dict[str, Any]:
    """Each half of the people, told apart by a hash of the name, under weights found on the other half alone."""
    from daemon.calibrate import fit, half_of

    names = [photo.person for photo in with_face(found)] + [""] * int((found.label < 0).sum())
    half = np.array([half_of(name) for name in names])
    result: dict[str, Any] = {}
    for known, asked in ((0, 1), (1, 0)):
        faces, people = subset(found, (half == known) & (found.label >= 0))
        calibration = fit(found.model, faces.vectors, np.unique(people, return_inverse=True)[1], seed)
        faces, people = subset(found, (half == asked) & (found.label >= 0))
        result[f"half {asked}"] = asdict(agreement(people, cluster(faces, calibration, Constraints())))
        faces, people = subset(found, found.label >= 0)
        result[f"all, calibrated on {known}"] = asdict(agreement(people, cluster(faces, calibration, Constraints())))
    return result


def by_peers(found: People) -> dict[str, Any]:
    """Other methods on the labelled faces, each at its best setting there."""
    from daemon.peers import PEERS, best

    faces, people = subset(found, found.label >= 0)
    result = {}
    for method, run in PEERS.items():
        try:
            entry = best(method, run(faces.vectors), people)
        except ImportError as error:
            result[method] = {"setting": str(error)}
            continue
        result[method] = {**asdict(entry.agreement), "setting": entry.setting}
    return result


def save_mixed(found: People, labels: Ints, folder: Path) -> None:
    """Writes a contact sheet of every cluster that holds faces of several people."""
    from daemon.montage import montage

    folder.mkdir(parents=True, exist_ok=True)
    photos = with_face(found)
    named = labels[: len(photos)]
    for label in np.unique(named):
        rows = np.flatnonzero(named == label)
        if len(np.unique(found.label[rows])) > 1:
            tiles = [(photos[row].main.thumbnail, photos[row].person) for row in rows]
            montage(tiles).save(folder / f"cluster-{label}.jpg", quality=90)

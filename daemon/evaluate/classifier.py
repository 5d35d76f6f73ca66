"""`enrichd evaluate classifier`: whether faces of known people are recognised, on photos that were held back."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from daemon.evaluate import frame
from daemon.evaluate.frame import Options
from daemon.evaluate.identities import subset, with_face
from daemon.evaluate.people import People, photos_of, read
from daemon.recognition import TooFewLabels, disjoint_split, judge, train

Ints = NDArray[np.int64]

Folder = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A folder of photos a person.")]
MinImages = Annotated[int, typer.Option("--min-images", min=2, help="Photos that a person needs to be trained on.")]

#: share of the photos that the tutorial trains on
TUTORIAL_SHARE = 0.8


def register(app: typer.Typer) -> None:
    app.command("classifier")(classifier)


def classifier(
    people: Folder,
    min_images: MinImages = 10,
    limit: frame.Limit = None,
    seed: frame.Seed = 0,
    as_json: frame.Json = False,
    device: frame.Device = None,
    model: frame.Model = None,
) -> None:
    """Measure recognition: train on some photos of each person, ask for the others."""
    options = Options(limit, seed, as_json, device, model)
    found = read(photos_of(people, options), options)
    frame.report("classifier", figures(found, min_images, seed), options)


def figures(found: People, min_images: int, seed: int) -> dict[str, Any]:
    """The disjoint split, how many strangers (people with fewer photos) are taken for somebody, and the tutorial's
    protocol. Raises TooFewLabels."""
    names = [photo.person for photo in with_face(found)]
    faces, labels = subset(found, found.label >= 0)
    counts = np.bincount(labels)
    known = counts[labels] >= min_images
    if len(np.unique(labels[known])) < 2:
        raise TooFewLabels(f"Fewer than two people have {min_images} photos with a face.")
    numbers, own = np.unique(labels[known], return_inverse=True)
    called = [names[int(np.flatnonzero(labels == number)[0])] for number in numbers]
    vectors, photos = faces.vectors[known], faces.photo[known]
    test = disjoint_split(own, photos, seed)
    recognizer = train(found.model, "identity", called, vectors[~test], own[~test], photos[~test], seed)
    judged = judge(recognizer, (vectors[~test], own[~test]), (vectors[test], own[test]))
    strangers = faces.vectors[~known]
    taken = recognizer.tell(strangers)[1] >= recognizer.threshold if len(strangers) else np.zeros(0)
    return {
        "accuracy": judged.accuracy,
        "people": len(called),
        "train": judged.train,
        "test": judged.test,
        "protocol": "disjoint photos, linear SVM",
        "nearest_centroid": judged.nearest_centroid,
        "rejected": judged.rejected,
        "accuracy_accepted": judged.accuracy_accepted,
        "strangers": len(strangers),
        "strangers_accepted": float(np.mean(taken)) if len(strangers) else None,
        "threshold": recognizer.threshold,
        "confusion": {f"{true} → {told}": {"faces": n} for (true, told), n in judged.confusion.items()},
        "tutorial": tutorial(vectors, own, seed),
    }


def tutorial(vectors: NDArray[np.float32], labels: Ints, seed: int) -> dict[str, Any]:
    """The protocol of a well-known tutorial (FaceNet and a linear SVM on LFW, at least ten photos a person; 90.8 %
    published): what it tests on holds photos that it was trained on. To compare with, not to believe."""
    from sklearn.svm import SVC

    rng = np.random.default_rng(seed)
    trained = rng.random(len(labels)) < TUTORIAL_SHARE
    machine = SVC(kernel="linear", C=1.0).fit(vectors[trained], labels[trained])
    return {
        "accuracy": float((machine.predict(vectors) == labels).mean()),
        "train": int(trained.sum()),
        "test": len(labels),
        "protocol": "test holds training photos, as published: 0.908 with FaceNet",
    }

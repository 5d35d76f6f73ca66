"""Detected faces become stored faces: found again where they were, new where they were not, and assigned at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from bson import ObjectId
from pymongo import UpdateOne

from daemon.calibration import Calibrations
from daemon.exemplars import Exemplars
from daemon.store import faces as store
from daemon.store import identities as identity_store
from daemon.store.collections import Collections, Document
from daemon.store.faces import FORGOTTEN, StoredFace, face_id, key_of
from daemon.tally import Tally
from enrichers.contract import Face

#: overlap (intersection over union) from which a detection on the same bytes can be the stored face. Two detectors'
#: boxes of one face overlap by half or more; boxes of two faces beside each other by a tenth.
MIN_OVERLAP = 0.3
#: overlap from which boxes alone say that it is the same face, where the bytes changed and no vectors can be compared
SURE_OVERLAP = 0.6
#: confidence of a trained recognizer from which its guess is kept as a suggestion
SUGGEST_FROM = 0.3
#: quality value below which a face is not assigned to anybody
MIN_QUALITY = 0.3


@dataclass(frozen=True)
class ImageFaces:
    """What the faces enricher found on one image."""

    document_key: dict[str, Any]
    image_sha256: str
    faces: tuple[Face, ...]


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes [x, y, width, height]."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def likeness(stored: StoredFace, found: Face, calibrations: Calibrations) -> float | None:
    """Log-likelihood ratio that both show one person, by a calibrated embedding model that both have; None without
    one."""
    for model in sorted(set(stored.embeddings) & set(found.embeddings)):
        a, b, calibration = stored.embeddings[model], found.embeddings[model], calibrations.get(model)
        if calibration is not None and a.shape == b.shape:
            cosine = float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
            return float(calibration.log_ratio(np.array([1.0 - cosine], dtype=np.float32))[0])
    return None


def match(
    stored: Sequence[StoredFace], found: Sequence[Face], image_sha256: str, calibrations: Calibrations
) -> list[int | None]:
    """Which stored face each detection is, one to one: an index into `stored` or None for a new face.

    On the same bytes overlap decides, one pair with another by the best sum (Hungarian method). Where the bytes
    changed, the photo may have been cropped, turned or be another one: then the vectors decide, and overlap only
    breaks ties; boxes alone count where no vectors can be compared.
    """
    from scipy.optimize import linear_sum_assignment

    if not stored or not found:
        return [None] * len(found)
    score = np.zeros((len(found), len(stored)))
    for row, face in enumerate(found):
        for column, known in enumerate(stored):
            area = overlap(face.box, known.box)
            if known.image_sha256 == image_sha256:
                score[row, column] = 3.0 + area if area >= MIN_OVERLAP else 0.0
            elif (ratio := likeness(known, face, calibrations)) is not None:
                score[row, column] = 1.0 + min(ratio, 50.0) / 50.0 + area if ratio > 0 else 0.0
            elif area >= SURE_OVERLAP:
                score[row, column] = area
    rows, columns = linear_sum_assignment(score, maximize=True)
    result: list[int | None] = [None] * len(found)
    for row, column in zip(rows, columns, strict=True):
        if score[row, column] > 0:
            result[int(row)] = int(column)
    return result


def new_id(image: ImageFaces, rank: int, taken: set[ObjectId]) -> ObjectId:
    """The id of detection number `rank`, derived from image, bytes and rank; the next free rank where it is taken by a
    stored face that another detection was matched to."""
    while (id := face_id(image.document_key, image.image_sha256, rank)) in taken:
        rank += len(image.faces)
    return id


@dataclass(frozen=True)
class Belongs:
    """Whom a face belongs to, and why: by "cluster" with its cosine distance, by "classifier" with its confidence."""

    identity: ObjectId
    by: str
    distance: float | None
    confidence: float | None


@dataclass(frozen=True)
class Placed:
    """A detection with its id and, where it was found again, its stored face."""

    id: ObjectId
    face: Face
    known: StoredFace | None

    @property
    def fresh(self) -> bool:
        """Whether its vectors are new, so that clustering must look at it."""
        if self.known is None:
            return True
        stored = self.known.embeddings
        return any(
            model not in stored or not np.array_equal(stored[model], vector)
            for model, vector in self.face.embeddings.items()
        )


def place(
    image: ImageFaces, stored: Sequence[StoredFace], calibrations: Calibrations
) -> tuple[list[Placed], list[StoredFace]]:
    """An image's detections with their ids, and the stored faces that were not found again."""
    matched = match(stored, image.faces, image.image_sha256, calibrations)
    taken = {face.id for face in stored}
    placed: list[Placed] = []
    for rank, (face, index) in enumerate(zip(image.faces, matched, strict=True)):
        known = None if index is None else stored[index]
        id = known.id if known else new_id(image, rank, taken)
        taken.add(id)
        placed.append(Placed(id, face, known))
    gone = [face for index, face in enumerate(stored) if index not in matched]
    return placed, gone


async def write_faces(
    collections: Collections,
    batch: Sequence[ImageFaces],
    now: datetime,
    exemplars: Exemplars | None = None,
    tally: Tally | None = None,
) -> list[list[Document]]:
    """Stores the faces of a batch of images and returns, for each image, what goes under `enrichments.faces.items`.

    Harmless twice: a second call with the same batch changes nothing. `exemplars` are the known people; without them
    they are read from the database, so a caller with many batches passes one and it is kept up to date here. `tally`
    gets to know whose faces came or went.
    """
    exemplars = exemplars or Exemplars()
    await exemplars.refresh(collections)
    stored = await store.of_images(collections, [image.document_key for image in batch])
    forgotten = await store.forgotten_boxes(collections, [image.image_sha256 for image in batch])

    placed: list[list[Placed]] = []
    gone: list[StoredFace] = []
    for image in batch:
        faces, lost = place(image, stored[key_of(image.document_key)], exemplars.calibrations)
        placed.append(faces)
        gone += lost
    operations: list[UpdateOne] = []
    candidates = [assign(faces, exemplars) for faces in placed]
    wanted = [entry["belongs"].identity for found in candidates for entry in found.values() if "belongs" in entry]
    living = await identity_store.names(collections, wanted)
    identities: list[dict[ObjectId, ObjectId | None]] = []
    for image, faces, assigned in zip(batch, placed, candidates, strict=True):
        who: dict[ObjectId, ObjectId | None] = {}
        for entry in faces:
            if is_forgotten(entry, forgotten.get(image.image_sha256, ())):
                operations.append(
                    store.upsert_forgotten(entry.id, image.document_key, image.image_sha256, entry.face, now)
                )
                who[entry.id] = None
                continue
            insert = dict(assigned.get(entry.id, {}))
            belongs: Belongs | None = insert.pop("belongs", None)
            if belongs is not None and belongs.identity in living:
                insert |= store.assignment(belongs.identity, belongs.by, now, belongs.distance, belongs.confidence)
            operations.append(
                store.upsert(entry.id, image.document_key, image.image_sha256, entry.face, now, entry.fresh, insert)
            )
            who[entry.id] = entry.known.identity if entry.known else insert.get("identity")
        identities.append(who)
    await store.write(collections, operations)
    await store.remove(collections, gone)
    if tally is not None:
        back = [entry.known.identity for faces in placed for entry in faces if entry.known and entry.known.detached]
        tally.note([*wanted, *back, *(face.identity for face in gone)])

    names = await identity_store.names(collections, [id for who in identities for id in who.values() if id])
    return [
        [item(entry, identity := who[entry.id], names.get(identity) if identity else None) for entry in faces]
        for faces, who in zip(placed, identities, strict=True)
    ]


def is_forgotten(entry: Placed, forgotten: Sequence[StoredFace]) -> bool:
    """Whether this is the face of somebody who was forgotten: the same place on the same bytes."""
    if entry.known is not None:
        return entry.known.verdict == FORGOTTEN
    return any(overlap(entry.face.box, face.box) >= MIN_OVERLAP for face in forgotten)


def assign(faces: Sequence[Placed], exemplars: Exemplars) -> dict[ObjectId, Document]:
    """What is stored of the new faces of one image that clearly belong to an identity, by the nearest exemplars or by a
    trained recognizer; where it is less sure, its guess is kept as a suggestion. One identity is given to one face of a
    photo, the one that fits best, and to none where a stored face has it already."""
    taken = {face.known.identity for face in faces if face.known and face.known.identity}
    wanted: list[tuple[float, ObjectId, Belongs]] = []
    result: dict[ObjectId, Document] = {}
    for entry in faces:
        value = entry.face.quality.get("value")
        if entry.known is not None or (value is not None and float(value) < MIN_QUALITY):
            continue
        nearest = exemplars.nearest(entry.face.embeddings)
        if nearest is not None and nearest.sure:
            wanted.append((nearest.distance, entry.id, Belongs(nearest.identity, "cluster", nearest.distance, None)))
            continue
        told = exemplars.recognized(entry.face.embeddings)
        if told is not None and told.sure:
            wanted.append(
                (1.0 - told.confidence, entry.id, Belongs(told.identity, "classifier", None, told.confidence))
            )
        elif told is not None and told.confidence >= SUGGEST_FROM:
            guess = {"identity": told.identity, "by": "classifier", "confidence": round(told.confidence, 4)}
            result[entry.id] = {"suggested": guess}
    for _, id, belongs in sorted(wanted, key=lambda entry: (entry[2].by, entry[0], entry[1])):
        if belongs.identity not in taken:
            taken.add(belongs.identity)
            ignored = {"verdict": store.IGNORED} if exemplars.ignored(belongs.identity) else {}
            result[id] = {"belongs": belongs, **ignored}
    return result


def item(entry: Placed, identity: ObjectId | None, name: str | None) -> Document:
    """A face as the image document shows it."""
    return {
        "face": entry.id,
        "box": [round(float(value), 1) for value in entry.face.box],
        "score": round(float(entry.face.score), 4),
        "identity": identity,
        "name": name,
        **{key: entry.face.attributes.get(key) for key in ("age", "gender", "emotion")},
    }


async def delete_faces(
    collections: Collections, document_keys: Sequence[Mapping[str, Any]], tally: Tally | None = None
) -> int:
    """Deletes the faces of images that are gone, detaches those that a person decided on; returns how many are
    deleted. `tally` gets to know whose they were."""
    stored = await store.of_images(collections, document_keys)
    faces = [face for found in stored.values() for face in found]
    gone = await store.remove(collections, faces)
    if tally is not None:
        tally.note(face.identity for face in faces)
    return gone

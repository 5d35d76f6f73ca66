"""Made-up faces for tests: people as directions in space, faces as points near them."""

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from daemon.faces import ImageFaces, write_faces
from daemon.store.collections import Collections
from enrichers.contract import Face

MODEL = "dlib"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def person(seed: int, dimensions: int = 128) -> NDArray[np.float32]:
    """A person's direction: far from every other's."""
    vector = np.random.default_rng(seed).standard_normal(dimensions)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def vector(who: int, shot: int, spread: float = 0.15) -> NDArray[np.float32]:
    """One shot of a person: cosine distance to another shot of about spread²."""
    noise = np.random.default_rng((who, shot)).standard_normal(128)
    value = person(who) + spread * noise / np.linalg.norm(noise)
    return np.asarray(value / np.linalg.norm(value), dtype=np.float32)


def face(who: int, shot: int, box: tuple[float, float, float, float] = (10, 10, 40, 40), **more: object) -> Face:
    """A detection of a person."""
    options = {"score": 0.9, "quality": {"value": 0.9}, "thumbnail": b"jpeg", **more}
    landmarks = tuple((box[0] + 5.0 * n, box[1] + 5.0) for n in range(5))
    embeddings = options.pop("embeddings", {MODEL: vector(who, shot)})
    return Face(box=box, landmarks=landmarks, embeddings=embeddings, **options)  # type: ignore[arg-type]


def image(number: int, *faces: Face, sha: str | None = None) -> ImageFaces:
    """What was found on image number so-and-so."""
    return ImageFaces({"_id": number}, sha or f"sha{number}", faces)


async def insert(collections: Collections, *images: ImageFaces) -> None:
    """Writes faces and the images that show them, as the pipeline does."""
    for entry, items in zip(images, await write_faces(collections, images, NOW), strict=True):
        shown = {"$set": {"enrichments.faces.items": items}}
        await collections.images.update_one(entry.document_key, shown, upsert=True)

"""Reads what a verification compares: images with the faces they show, faces with their images, identities."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson import encode

from daemon.plan import ImageDocument, Plan
from daemon.store.collections import Collections, Document
from daemon.store.images import ENRICHMENT, ENRICHMENTS, read_path

#: images whose faces are read together
CHUNK = 200


@dataclass(frozen=True, slots=True)
class ImageWithFaces:
    """An image, the faces its answer lists, and those that the faces collection has for it."""

    image: ImageDocument
    shown: tuple[Mapping[str, Any], ...]
    stored: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class IdentityCounts:
    """An identity's counts as it states them, and as its faces make them."""

    id: Any
    state: str
    kept: bool  #: a person named or decided on it, so that it may have no face
    stated: tuple[int, int]  #: faces, images
    counted: tuple[int, int]


async def set_aside(collections: Collections) -> set[bytes]:
    """The ids, encoded as BSON, of the documents that cannot hold results; the failures collection tells why."""
    return {encode({"_id": failure["_id"]}) async for failure in collections.failures.find({}, {"_id": 1})}


async def images(
    collections: Collections, source: str, filter: Mapping[str, Any], plan: Plan
) -> AsyncIterator[ImageWithFaces]:
    """Every image that is enriched, with its faces."""
    projection = dict.fromkeys([source, ENRICHMENT, *(f"{ENRICHMENTS}.{step.name}.run" for step in plan.steps)], 1)
    projection |= {f"{ENRICHMENTS}.faces.{name}": 1 for name in ("items.face", "items.identity", "items.box")}
    chunk: list[Document] = []
    query = {"$and": [{source: {"$ne": None}}, *([dict(filter)] if filter else [])]}
    async for document in collections.images.find(query, projection):
        chunk.append(document)
        if len(chunk) == CHUNK:
            for image in await _with_faces(collections, chunk, source):
                yield image
            chunk = []
    for image in await _with_faces(collections, chunk, source):
        yield image


def _mapping(value: Any) -> Mapping[str, Any]:
    """What the user put where enrichd's own sub-document belongs counts as nothing."""
    return value if isinstance(value, Mapping) else {}


async def _with_faces(collections: Collections, documents: Sequence[Document], source: str) -> list[ImageWithFaces]:
    ids = [document["_id"] for document in documents]
    stored: dict[bytes, list[Document]] = {encode({"_id": id}): [] for id in ids}
    fields = dict.fromkeys(("image", "identity", "detached", "box", "image_sha256"), 1)
    async for face in collections.faces.find({"image._id": {"$in": ids}}, fields):
        stored[encode({"_id": face["image"]["_id"]})].append(face)
    return [
        ImageWithFaces(
            ImageDocument(
                key={"_id": document["_id"]},
                source=read_path(document, source),
                enrichment=_mapping(document.get(ENRICHMENT)),
                enrichments=_mapping(document.get(ENRICHMENTS)),
            ),
            tuple(read_path(document, f"{ENRICHMENTS}.faces.items") or ()),
            tuple(stored[encode({"_id": document["_id"]})]),
        )
        for document in documents
    ]


async def faces(collections: Collections) -> AsyncIterator[tuple[Any, bool]]:
    """The id of every face, and whether its image is there; without the detached ones, which may outlive it."""
    chunk: list[Document] = []
    async for face in collections.faces.find({"detached": {"$ne": True}}, {"image": 1}):
        chunk.append(face)
        if len(chunk) == CHUNK:
            for found in await _with_image(collections, chunk):
                yield found
            chunk = []
    for found in await _with_image(collections, chunk):
        yield found


async def _with_image(collections: Collections, faces: Sequence[Document]) -> list[tuple[Any, bool]]:
    ids = [face["image"]["_id"] for face in faces]
    cursor = collections.images.find({"_id": {"$in": ids}}, {"_id": 1})
    there = {encode({"_id": document["_id"]}) async for document in cursor}
    return [(face["_id"], encode({"_id": face["image"]["_id"]}) in there) for face in faces]


async def identity_counts(collections: Collections) -> tuple[list[IdentityCounts], list[tuple[Any, Any]]]:
    """Every identity with its counts; and the faces of identities that are not there, as face and identity."""
    faces: dict[Any, int] = {}
    images_of: dict[Any, set[bytes]] = {}
    an_example: dict[Any, Any] = {}
    query = {"identity": {"$ne": None}, "detached": {"$ne": True}}
    async for face in collections.faces.find(query, {"identity": 1, "image": 1}):
        identity = face["identity"]
        faces[identity] = faces.get(identity, 0) + 1
        images_of.setdefault(identity, set()).add(encode({"_id": face["image"]["_id"]}))
        an_example.setdefault(identity, face["_id"])
    counts = []
    async for document in collections.identities.find({}, {"exemplars": 0, "centroid": 0}):
        id = document["_id"]
        an_example.pop(id, None)
        kept = bool(document.get("name") or document.get("ignored") or document.get("state") != "active")
        stated = (int(document.get("face_count") or 0), int(document.get("image_count") or 0))
        counted = (faces.get(id, 0), len(images_of.get(id, ())))
        counts.append(IdentityCounts(id, str(document.get("state")), kept, stated, counted))
    return counts, [(face, identity) for identity, face in an_example.items()]

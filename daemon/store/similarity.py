"""What reverse image search reads from the image documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.store.collections import Collections, Document
from daemon.store.images import read_path
from daemon.store.vectors import from_binary
from enrichers.embedders import unpack_regions
from enrichers.keypoints import Keypoints

ANSWER = "enrichments.similarity"


@dataclass(frozen=True)
class Described:
    """The images that can be searched, in one order."""

    ids: list[Any]
    sources: list[Any]  #: as the documents name them; None for embedded bytes
    vectors: NDArray[np.float32]  #: (n, d)
    regions: NDArray[np.float32]  #: (n, r, d)


async def described(collections: Collections, source: str, fingerprint: str) -> Described | None:
    """Every image whose similarity was computed as `fingerprint` says; None where there is none. `source`: dotted path
    of the source field. About 26 kB an image with the default model."""
    wanted = {f"{ANSWER}.run.fingerprint": fingerprint, f"{ANSWER}.run.state": "done"}
    fields = {f"{ANSWER}.vector": 1, f"{ANSWER}.regions": 1, source: 1}
    ids, sources, vectors, regions = [], [], [], []
    async for document in collections.images.find(wanted, fields, batch_size=500):
        answer = read_path(document, ANSWER)
        ids.append(document["_id"])
        named = read_path(document, source)
        sources.append(None if isinstance(named, (bytes, dict)) else named)
        vectors.append(from_binary(answer["vector"]))
        regions.append(unpack_regions(answer["regions"], len(vectors[-1])))
    return Described(ids, sources, np.stack(vectors), np.stack(regions)) if ids else None


async def keypoints(collections: Collections, ids: Sequence[Any]) -> dict[Any, Keypoints]:
    """The keypoints of these images, by id."""
    cursor = collections.images.find({"_id": {"$in": list(ids)}}, {f"{ANSWER}.keypoints": 1})
    found: dict[Any, Keypoints] = {}
    async for document in cursor:
        stored: Document | None = read_path(document, f"{ANSWER}.keypoints")
        if stored:
            found[document["_id"]] = Keypoints.unpack(stored["points"], stored["descriptors"])
    return found


async def outdated(collections: Collections, fingerprint: str) -> int:
    """How many images have a similarity that was computed otherwise, and are left out of a search."""
    return await collections.images.count_documents(
        {f"{ANSWER}.run.state": "done", f"{ANSWER}.run.fingerprint": {"$ne": fingerprint}}
    )

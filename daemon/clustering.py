"""Who is who among many faces: clustering of embeddings as pure functions on arrays."""

import heapq
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from daemon.calibration import Calibration

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: neighbours of a face that are looked at
NEIGHBOURS = 32
#: mean log-likelihood ratio between two clusters from which they are one person
MERGE_AT = 4.0


@dataclass(frozen=True)
class Faces:
    """n faces as clustering sees them."""

    vectors: Floats  #: (n, d), of length 1
    quality: Floats  #: (n,), 0 to 1
    photo: Ints  #: (n,) number of the photo's bytes: faces of one photo are different people, twins of it count once


@dataclass(frozen=True)
class Constraints:
    """What people said. `must`: groups of rows that are one person. `cannot`: pairs of groups, of which no row of the
    one is the same person as a row of the other."""

    must: tuple[tuple[int, ...], ...] = ()
    cannot: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = field(default=())


def cluster(faces: Faces, calibration: Calibration, constraints: Constraints) -> Ints:
    """Faces → (n,) cluster numbers, counted from 0; every face has one, a face left alone is a cluster of its own."""
    count = len(faces.vectors)
    parent = np.arange(count)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = int(parent[node])
        return node

    sums = faces.vectors.astype(np.float64).copy()
    sizes = np.ones(count, dtype=np.int64)
    photos: list[set[int]] = [{int(photo)} for photo in faces.photo]
    apart: list[set[int]] = [set() for _ in range(count)]
    for index, (ones, others) in enumerate(constraints.cannot):
        for row in ones:
            apart[row].add(index + 1)
        for row in others:
            apart[row].add(-index - 1)

    def join(a: int, b: int) -> int:
        if sizes[a] < sizes[b]:
            a, b = b, a
        parent[b] = a
        sums[a] += sums[b]
        sizes[a] += sizes[b]
        photos[a] |= photos[b]
        apart[a] |= apart[b]
        return a

    for group in constraints.must:
        for row in group[1:]:
            a, b = root(group[0]), root(row)
            if a != b:
                join(a, b)

    def evidence(a: int, b: int) -> float:
        distance = 1.0 - sums[a] @ sums[b] / (sizes[a] * sizes[b])
        return float(calibration.log_ratio(np.array([distance], dtype=np.float32))[0])

    near: list[dict[int, None]] = [{} for _ in range(count)]
    for row, others in enumerate(neighbours(faces.vectors, min(NEIGHBOURS, count - 1))):
        for other in others:
            a, b = root(row), root(int(other))
            if a != b:
                near[a][b] = None
                near[b][a] = None
    queue = [(-evidence(a, b), a, b, sizes[a] + sizes[b]) for a in range(count) for b in near[a] if a < b]
    heapq.heapify(queue)
    while queue:
        value, a, b, size = heapq.heappop(queue)
        if -value < MERGE_AT:
            break
        if parent[a] != a or parent[b] != b or size != sizes[a] + sizes[b]:
            continue
        if photos[a] & photos[b] or any(-mark in apart[b] for mark in apart[a]):
            continue
        kept = join(a, b)
        around = {root(other): None for other in (*near[a], *near[b])}
        around.pop(kept, None)
        near[kept] = around
        for other in around:
            near[other][kept] = None
            heapq.heappush(queue, (-evidence(kept, other), kept, other, sizes[kept] + sizes[other]))
    return np.unique([root(row) for row in range(count)], return_inverse=True)[1].astype(np.int64)


def neighbours(vectors: Floats, k: int) -> Ints:
    """The k nearest other rows of each row by cosine, (n, k)."""
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    _, found = index.search(vectors, k + 1)
    return np.asarray(found[:, 1:], dtype=np.int64)

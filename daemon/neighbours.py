"""Nearest neighbours among many unit vectors by cosine: exactly for few, through cells for many."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Rows = NDArray[np.int32]

#: up to this many vectors all are compared with all
EXACT_UP_TO = 20_000
#: principal axes that neighbours are looked for along; of dlib's embeddings they hold 98 % of the variance
AXES = 64
#: vectors a cell, and cells that each vector is compared with
CELL, PROBES = 256, 8
#: groups of cells in which the nearest cells are looked for
GROUP_PROBES = 8
#: vectors a cell that its centre is found from, and rounds of k-means
TRAIN_A_CELL, TRAIN_ROUNDS = 40, 6
#: rows that are worked on at a time
BLOCK = 16_384


@dataclass(frozen=True)
class Pairs:
    """Pairs of neighbouring rows, each once, `ones` < `others`. `place` (n,): vectors with numbers near one another lie
    near one another, so that work in this order finds what it needs in the processor's caches."""

    ones: Rows
    others: Rows
    place: Rows


def knn(queries: Floats, base: Floats, k: int) -> tuple[Floats, Ints]:
    """The k largest inner products of each query with the base, exactly: (q, k) similarities and rows, best first."""
    import faiss

    similar, rows = faiss.knn(queries, base, min(k, len(base)), metric=faiss.METRIC_INNER_PRODUCT)
    return similar, rows


def nearest(queries: Floats, base: Floats, k: int) -> Ints:
    """The rows of the base with the k largest inner products with each query, (q, k), best first; -1 where fewer were
    found."""
    if not len(queries) or not len(base):
        return np.zeros((len(queries), 0), dtype=np.int64)
    if len(base) <= EXACT_UP_TO:
        return knn(queries, base, k)[1]
    result = np.empty((len(queries), k), dtype=np.int64)
    for rows, found in Cells(base).search(queries, k):
        result[rows] = found
    return result


def neighbours(vectors: Floats, k: int) -> Pairs:
    """Pairs of rows of which one is among the k nearest of the other."""
    count = len(vectors)
    if count < 2:
        return Pairs(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(count, np.int32))
    found: list[tuple[Rows, Rows]]
    if count <= EXACT_UP_TO:
        place = np.arange(count, dtype=np.int32)
        found = [(place, knn(vectors, vectors, k + 1)[1].astype(np.int32))]
    else:
        cells = Cells(vectors)
        place, found = cells.place, list(cells.own(k + 1))
        del cells
    keys: list[Ints] = []
    while found:
        rows, near = found.pop()
        ones, others = np.repeat(rows.astype(np.int64), near.shape[1]), near.reshape(-1)
        kept = (others >= 0) & (others != ones)
        keys.append(np.minimum(ones, others)[kept] * count + np.maximum(ones, others)[kept])
    pairs = np.concatenate(keys)
    del keys
    pairs.sort()
    pairs = pairs[np.concatenate(([True], pairs[1:] != pairs[:-1]))]
    return Pairs((pairs // count).astype(np.int32), (pairs % count).astype(np.int32), place)


class Cells:
    """An inverted file (Jégou, Douze, Schmid 2011) over the principal axes: a vector lies in the cell of its nearest
    centre, and a query is compared with the vectors of the cells whose centres are nearest to it.

    Queries are asked for in the order of their cells: what one has read, the next finds in the processor's caches.
    """

    def __init__(self, base: Floats, seed: int = 0) -> None:
        count = len(base)
        rng = np.random.default_rng(seed)
        self._mean, self._axes = principal(
            base[np.sort(rng.choice(count, min(count, EXACT_UP_TO), replace=False))], AXES
        )
        self._reduced = self._along_axes(base)
        cells = max(1, count // CELL)
        sample = self._reduced[np.sort(rng.choice(count, min(count, cells * TRAIN_A_CELL), replace=False))]
        # two levels of centres (Nistér, Stewénius 2006), so that the time does not grow with the square of their number
        groups = means(sample, min(len(sample), max(1, round(cells**0.5))), seed + 1)
        inside = within(sample, groups)
        found = [
            means(own, max(1, round(len(own) * cells / len(sample))), seed + 1)
            for own in (sample[inside == group] for group in range(len(groups)))
            if len(own)
        ]
        centres = np.concatenate(found)
        self._centres = inverted(groups, centres, within(centres, groups), GROUP_PROBES)
        self._probes = self._probed(self._reduced)
        self._order = np.argsort(self._probes[:, 0], kind="stable").astype(np.int32)
        self._index = inverted(centres, self._reduced, np.ascontiguousarray(self._probes[:, 0]), PROBES)

    @property
    def place(self) -> Rows:
        """(n,) where each vector stands in the order of the cells."""
        place = np.empty(len(self._order), dtype=np.int32)
        place[self._order] = np.arange(len(self._order), dtype=np.int32)
        return place

    def own(self, k: int) -> Iterator[tuple[Rows, Rows]]:
        """Blocks of (rows, the k nearest rows of each, itself among them, -1 where fewer were found)."""
        return self._asked(self._reduced, self._probes, self._order, k)

    def search(self, queries: Floats, k: int) -> Iterator[tuple[Rows, Rows]]:
        """Blocks of (rows of the queries, the k nearest rows of the base of each, -1 where fewer were found)."""
        reduced = self._along_axes(queries)
        probes = self._probed(reduced)
        return self._asked(reduced, probes, np.argsort(probes[:, 0], kind="stable").astype(np.int32), k)

    def _asked(self, reduced: Floats, probes: Ints, order: Rows, k: int) -> Iterator[tuple[Rows, Rows]]:
        import faiss

        def ask(rows: Rows) -> tuple[Rows, Rows]:
            asked = probes[rows]
            unused = np.zeros(asked.shape, dtype=np.float32)  # distances to the centres: this index needs none
            return rows, self._index.search_preassigned(reduced[rows], k, asked, unused)[1].astype(np.int32)

        with ThreadPoolExecutor(faiss.omp_get_max_threads()) as pool:
            yield from pool.map(ask, (order[start : start + BLOCK] for start in range(0, len(order), BLOCK)))

    def _along_axes(self, vectors: Floats) -> Floats:
        reduced = np.empty((len(vectors), AXES), dtype=np.float32)
        for start in range(0, len(vectors), BLOCK):
            reduced[start : start + BLOCK] = (vectors[start : start + BLOCK] - self._mean) @ self._axes
        return reduced

    def _probed(self, reduced: Floats) -> Ints:
        """The cells that each vector is compared with, the one that it lies in first, -1 where there are fewer."""
        probes = np.empty((len(reduced), PROBES), dtype=np.int64)
        for start in range(0, len(reduced), BLOCK):
            probes[start : start + BLOCK] = self._centres.search(reduced[start : start + BLOCK], PROBES)[1]
        return probes


def means(vectors: Floats, count: int, seed: int) -> Floats:
    """The centres of `count` cells, (count, d), by k-means."""
    import faiss

    found = faiss.Kmeans(vectors.shape[1], count, niter=TRAIN_ROUNDS, seed=seed, min_points_per_centroid=1)
    found.train(vectors)
    return np.asarray(found.centroids, dtype=np.float32)


def within(queries: Floats, centres: Floats) -> Ints:
    """In which cell each query lies, (q,): the one with the nearest centre."""
    import faiss

    return np.ascontiguousarray(faiss.knn(queries, centres, 1)[1][:, 0])


def inverted(centres: Floats, vectors: Floats, inside: Ints, probes: int) -> Any:
    """A faiss index of vectors that lie in the cells `inside`, (n,); queries look into the `probes` nearest cells."""
    import faiss

    quantizer = faiss.IndexFlatL2(centres.shape[1])
    quantizer.add(centres)
    index: Any = faiss.IndexIVFFlat(quantizer, centres.shape[1], len(centres))
    index.add_core(len(vectors), faiss.swig_ptr(vectors), None, faiss.swig_ptr(inside))
    index.nprobe = probes
    return index


def principal(sample: Floats, axes: int) -> tuple[Floats, Floats]:
    """Mean (d,) and the first principal axes (d, axes) of a sample (n, d)."""
    mean = sample.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((sample - mean).T))
    return mean, np.ascontiguousarray(vectors[:, ::-1][:, :axes], dtype=np.float32)

"""Nearest neighbours among many unit vectors by cosine: exactly for few, through cells for many."""

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
#: vectors a cell that its centre is found from, and rounds of k-means
TRAIN_A_CELL, TRAIN_ROUNDS = 40, 6
#: rows that are worked on at a time
BLOCK = 65_536


def knn(queries: Floats, base: Floats, k: int) -> tuple[Floats, Ints]:
    """The k largest inner products of each query with the base, exactly: (q, k) similarities and rows, best first."""
    import faiss

    similar, rows = faiss.knn(queries, base, min(k, len(base)), metric=faiss.METRIC_INNER_PRODUCT)
    return similar, rows


def neighbours(vectors: Floats, k: int, seed: int = 0) -> tuple[Rows, Rows]:
    """Pairs of rows (a < b, each once) of which one is among the k nearest of the other."""
    count = len(vectors)
    if count < 2:
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    keys: list[Ints] = []
    for start, rows in _rows(vectors, k + 1, seed):
        ones = np.repeat(np.arange(start, start + len(rows), dtype=np.int64), rows.shape[1])
        others = rows.reshape(-1)
        kept = (others >= 0) & (others != ones)
        keys.append(np.minimum(ones, others)[kept] * count + np.maximum(ones, others)[kept])
    pairs = np.concatenate(keys)
    pairs.sort()
    pairs = pairs[np.concatenate(([True], pairs[1:] != pairs[:-1]))]
    return (pairs // count).astype(np.int32), (pairs % count).astype(np.int32)


def _rows(vectors: Floats, k: int, seed: int) -> list[tuple[int, Ints]]:
    """Blocks of (first row, the k nearest rows of each row, -1 where fewer were found).

    Beyond `EXACT_UP_TO` vectors, through an inverted file of cells (Jégou, Douze, Schmid 2011) over the principal
    axes: a vector lies in the cell of its nearest centre and is compared with the vectors of the nearest cells.
    """
    import faiss

    count = len(vectors)
    if count <= EXACT_UP_TO:
        return [(0, knn(vectors, vectors, k)[1])]
    rng = np.random.default_rng(seed)
    mean, axes = principal(vectors[np.sort(rng.choice(count, EXACT_UP_TO, replace=False))], AXES)
    reduced = np.empty((count, axes.shape[1]), dtype=np.float32)
    for start in range(0, count, BLOCK):
        reduced[start : start + BLOCK] = (vectors[start : start + BLOCK] - mean) @ axes
    cells = count // CELL
    means = faiss.Kmeans(axes.shape[1], cells, niter=TRAIN_ROUNDS, seed=seed + 1, max_points_per_centroid=TRAIN_A_CELL)
    means.train(reduced[np.sort(rng.choice(count, min(count, cells * TRAIN_A_CELL), replace=False))])
    quantizer = faiss.IndexFlatL2(axes.shape[1])
    quantizer.add(means.centroids)
    index = faiss.IndexIVFFlat(quantizer, axes.shape[1], cells)
    index.add(reduced)
    index.nprobe = PROBES
    return [
        (start, index.search(reduced[start : start + BLOCK], k)[1].astype(np.int32)) for start in range(0, count, BLOCK)
    ]


def principal(sample: Floats, axes: int) -> tuple[Floats, Floats]:
    """Mean (d,) and the first principal axes (d, axes) of a sample (n, d)."""
    mean = sample.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((sample - mean).T))
    return mean, np.ascontiguousarray(vectors[:, ::-1][:, :axes], dtype=np.float32)

"""Other ways to cluster embeddings, to compare with: each at the best of a sweep of its setting."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.neighbours import knn
from daemon.scores import Agreement, agreement

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: cosine distances that thresholds are swept over, the likeliest first: a sweep may be stopped
THRESHOLDS = tuple(sorted(np.round(np.arange(0.03, 0.12, 0.0025), 4).tolist(), key=lambda value: abs(value - 0.05)))
#: faces up to which comparing all at once is the fastest way for HDBSCAN
BRUTE_UP_TO = 20_000
#: rows that are compared with all others at a time
BLOCK = 1024


@dataclass(frozen=True)
class Best:
    """A method at its best setting, judged by BCubed F on the data itself."""

    method: str
    setting: str
    agreement: Agreement


def best(method: str, runs: Iterator[tuple[str, Ints]], people: Ints) -> Best:
    """The run with the highest BCubed F."""
    found = [Best(method, setting, agreement(people, alone(labels))) for setting, labels in runs]
    return max(found, key=lambda entry: entry.agreement.bcubed_f)


def alone(labels: Ints) -> Ints:
    """Labels in which faces of no cluster (-1) are clusters of their own."""
    result = np.asarray(labels, dtype=np.int64).copy()
    noise = result < 0
    result[noise] = result.max(initial=-1) + 1 + np.arange(noise.sum())
    return result


def average_linkage(vectors: Floats, thresholds: Sequence[float] = THRESHOLDS) -> Iterator[tuple[str, Ints]]:
    """SciPy's average linkage of cosine distances, cut at each threshold."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    tree = linkage(pdist(vectors, "cosine"), "average")
    for threshold in thresholds:
        yield f"distance {threshold}", fcluster(tree, threshold, "distance").astype(np.int64)


def chinese_whispers(vectors: Floats, thresholds: Sequence[float] = THRESHOLDS) -> Iterator[tuple[str, Ints]]:
    """dlib's Chinese whispers on the graph of pairs nearer than each threshold."""
    import dlib

    for threshold in thresholds:
        edges = [(row, row) for row in range(len(vectors))]  # so that every face is in the graph
        for start in range(0, len(vectors), BLOCK):
            ones, others = np.nonzero(vectors[start : start + BLOCK] @ vectors[start:].T > 1.0 - threshold)
            above = others > ones
            edges += zip((ones[above] + start).tolist(), (others[above] + start).tolist(), strict=True)
        yield f"distance {threshold}", np.array(dlib.chinese_whispers(edges), dtype=np.int64)


def dbscan(vectors: Floats, thresholds: Sequence[float] = THRESHOLDS) -> Iterator[tuple[str, Ints]]:
    """scikit-learn's DBSCAN by cosine distance."""
    from scipy.sparse import csr_matrix
    from sklearn.cluster import DBSCAN

    count = len(vectors)
    similar, rows = knn(vectors, vectors, min(64, count))
    distances = np.maximum(1.0 - similar, 1e-7)
    graph = csr_matrix((distances.ravel(), rows.ravel(), np.arange(count + 1) * rows.shape[1]), shape=(count, count))
    graph = graph.minimum(graph.T) + (graph - graph.minimum(graph.T)) + (graph.T - graph.minimum(graph.T))
    for threshold in thresholds:
        for least in (2, 3):
            labels = DBSCAN(eps=threshold, min_samples=least, metric="precomputed").fit_predict(graph)
            yield f"eps {threshold}, min_samples {least}", labels


def hdbscan(vectors: Floats, sizes: Sequence[int] = (2, 3, 5)) -> Iterator[tuple[str, Ints]]:
    """scikit-learn's HDBSCAN on unit vectors, over its smallest cluster, neighbours and selection method."""
    from sklearn.cluster import HDBSCAN

    algorithm = "brute" if len(vectors) <= BRUTE_UP_TO else "auto"
    for size in sizes:
        for samples in (1, 2, 3):
            for method in ("eom", "leaf"):
                model = HDBSCAN(
                    size, min_samples=samples, cluster_selection_method=method, algorithm=algorithm, copy=True
                )
                yield f"min_cluster_size {size}, min_samples {samples}, {method}", model.fit_predict(vectors)


PEERS: dict[str, Callable[[Floats], Iterator[tuple[str, Ints]]]] = {
    "average linkage": average_linkage,
    "Chinese whispers": chinese_whispers,
    "HDBSCAN": hdbscan,
    "DBSCAN": dbscan,
}

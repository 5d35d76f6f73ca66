"""How well clusters agree with labels: BCubed and pairwise precision, recall and F."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Agreement:
    """Each between 0 and 1. BCubed (Bagga, Baldwin 1998) is the mean over faces, pairwise that over pairs of faces."""

    bcubed_precision: float
    bcubed_recall: float
    bcubed_f: float
    pairwise_precision: float
    pairwise_recall: float
    pairwise_f: float


def agreement(people: Ints, clusters: Ints) -> Agreement:
    """(n,) labels and (n,) cluster numbers, n at least 1."""
    _, true = np.unique(people, return_inverse=True)
    _, found = np.unique(clusters, return_inverse=True)
    keys, both = np.unique(true.astype(np.int64) * (found.max() + 1) + found, return_counts=True)
    of_person, of_cluster = np.bincount(true), np.bincount(found)
    person, cluster = keys // (found.max() + 1), keys % (found.max() + 1)
    count = len(true)
    precision = float((both**2 / of_cluster[cluster]).sum() / count)
    recall = float((both**2 / of_person[person]).sum() / count)
    together, claimed, there = (float((n * (n - 1) / 2).sum()) for n in (both, of_cluster, of_person))
    pair_precision = together / claimed if claimed else 1.0
    pair_recall = together / there if there else 1.0
    return Agreement(
        bcubed_precision=precision,
        bcubed_recall=recall,
        bcubed_f=f_measure(precision, recall),
        pairwise_precision=pair_precision,
        pairwise_recall=pair_recall,
        pairwise_f=f_measure(pair_precision, pair_recall),
    )


def f_measure(precision: float, recall: float) -> float:
    """The harmonic mean."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

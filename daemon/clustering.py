"""Who is who among many faces: agglomeration over a graph of neighbours, as pure functions on arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from daemon.calibration import Calibration
from daemon.neighbours import nearest, neighbours

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Rows = NDArray[np.int32] | NDArray[np.int64]
Flags = NDArray[np.bool_]

#: neighbours of a face that become edges of the graph
NEIGHBOURS = 16
#: faces from which on a cluster may hold all neighbours of each of its faces, so that no edge leads out of it: such
#: clusters are joined with those whose centroids are near
FULL = 8
#: nearest clusters of a new face that are compared with one another
BRIDGED = 3
#: quality value below which a face cannot bring others together; it is added to a cluster at the end, or stays alone
MIN_QUALITY = 0.3
#: evidence beyond the bar that makes a merge sure, so that its order among others does not matter
SURE = 3.0
#: cosine distance below which two faces on the same bytes are the same detection, made for two documents
SAME_DETECTION = 1e-3
#: rows whose vectors are gathered at a time
BLOCK = 262_144


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
    cannot: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class Merge:
    """One step of an agglomeration, kept for calibration: the rows of both clusters and what was measured."""

    ones: tuple[int, ...]
    others: tuple[int, ...]
    average: float
    centroid: float


class Evidence(Protocol):
    """What agglomeration merges by; a `Calibration` is one."""

    @property
    def slack(self) -> float: ...

    def evidence(self, average: Floats, centroid: Floats, ones: Floats, others: Floats) -> Floats: ...

    def bar(self, clusters: int) -> float: ...


def cluster(faces: Faces, calibration: Calibration, constraints: Constraints) -> Ints:
    """Faces → (n,) cluster numbers, counted from 0; every face has one, a face left alone is a cluster of its own."""
    good = gated(faces, constraints)
    same = twins(faces)
    marks = marks_of(faces, same, constraints)
    near = neighbours(faces.vectors, NEIGHBOURS)
    ones, others = near.ones, near.others
    together = groups(len(good), [*same, *constraints.must])
    first = np.full(len(good), len(good), dtype=np.int64)
    np.minimum.at(first, together, near.place)
    clusters = Clusters.of(faces.vectors, np.where(good, first[together], -1), same, marks)
    both = good[ones] & good[others]
    clusters.agglomerate(ones[both], others[both], calibration)
    clusters.agglomerate(*abreast(clusters), calibration)
    return numbered(attach(clusters, faces.vectors, ones[~both], others[~both], calibration))


def abreast(clusters: "Clusters") -> tuple[Ints, Ints]:
    """Pairs of large clusters with near centroids, as rows that stand for them. The parts of a person, all of whose
    faces have their neighbours within their own part, would never be compared otherwise."""
    large = np.flatnonzero(clusters.sizes >= FULL)
    centroids = clusters.sums[large] / np.linalg.norm(clusters.sums[large], axis=1, keepdims=True)
    near = nearest(centroids, centroids, NEIGHBOURS)
    member = clusters.member()[large]
    ones, others = np.repeat(member, near.shape[1]), near.reshape(-1)
    return ones[others >= 0], member[others[others >= 0]]


def grow(faces: Faces, labels: Ints, new: Flags, calibration: Calibration, constraints: Constraints) -> Ints:
    """Clusters with the `new` faces (n,) added to what was found before (`labels` (n,), -1 for faces that were left
    alone): only the new faces and the clusters near them are looked at. Old clusters may come together over a new
    face, none is divided. Labels as `cluster` gives them."""
    good = gated(faces, constraints)
    same = twins(faces)
    marks = marks_of(faces, same, constraints)
    start = labels.copy()
    alone = (start < 0) | new
    start[alone] = labels.max(initial=-1) + 1 + np.arange(int(alone.sum()))
    together = groups(len(start), [*same, *constraints.must])
    start = joined_labels(start, together)
    clusters = Clusters.of(faces.vectors, np.where(good, start, -1), same, marks)
    fresh = np.flatnonzero(new & good)
    poor = np.flatnonzero(new & ~good)
    centroids = clusters.sums / np.maximum(np.linalg.norm(clusters.sums, axis=1, keepdims=True), 1e-12)
    asked = np.concatenate((fresh, poor))
    if not len(asked) or not len(centroids):
        return numbered(start)
    near = nearest(faces.vectors[asked], centroids, NEIGHBOURS)
    member = clusters.member()
    rows = np.flatnonzero(clusters.label >= 0)
    touched = np.unique(near[: len(fresh), :BRIDGED])  # clusters that a new face may bring together
    touched = touched[touched >= 0]
    around = nearest(centroids[touched], centroids[touched], NEIGHBOURS // 2)
    ones: Ints = np.concatenate((np.repeat(asked, near.shape[1]), np.repeat(member[touched], around.shape[1])))
    others: Ints = np.concatenate((member[near.reshape(-1)], member[touched][around.reshape(-1)]))
    found = np.concatenate((near.reshape(-1), around.reshape(-1))) >= 0
    ones, others = ones[found], others[found]
    both = good[ones] & good[others]
    clusters.agglomerate(ones[both], others[both], calibration)
    result = attach(clusters, faces.vectors, ones[~both], others[~both], calibration)
    kept = np.flatnonzero(~good & ~new & (labels >= 0))  # poor faces that were added to a cluster earlier follow it
    follow = np.full(int(start.max()) + 1, -1, dtype=np.int64)
    follow[start[rows]] = clusters.label[rows]
    result[kept] = follow[start[kept]]
    return numbered(result)


def joined_labels(start: Ints, together: Ints) -> Ints:
    """Labels with those made one that have rows in the same group of `together`."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first = np.full(int(together.max(initial=-1)) + 1, -1, dtype=np.int64)
    first[together[::-1]] = start[::-1]
    count = int(start.max(initial=-1)) + 1
    moved = np.flatnonzero(first[together] != start)
    graph = coo_matrix((np.ones(len(moved), np.int8), (first[together[moved]], start[moved])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)[start]


def gated(faces: Faces, constraints: Constraints) -> Flags:
    """Which faces may bring others together: those of good quality, and those that a person joined with others."""
    good = faces.quality >= MIN_QUALITY
    good[[row for group in constraints.must for row in group]] = True
    return good


def numbered(labels: Ints) -> Ints:
    """Labels with the faces of none (-1) as clusters of their own, counted from 0 in the order of first appearance."""
    labels = labels.copy()
    alone = labels < 0
    labels[alone] = labels.max(initial=-1) + 1 + np.arange(alone.sum())
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def groups(count: int, joined: Iterable[Sequence[int]]) -> Ints:
    """Rows that belong together from the start: (count,) numbers of the connected groups."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ones: list[int] = []
    others: list[int] = []
    for group in joined:
        ones += group[:-1]
        others += group[1:]
    graph = coo_matrix((np.ones(len(ones), np.int8), (ones, others)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def twins(faces: Faces) -> list[tuple[int, int]]:
    """Pairs of faces that are one detection on the same bytes, found through two documents."""
    order = np.argsort(faces.photo, kind="stable")
    photo = faces.photo[order]
    starts = (
        np.flatnonzero(np.concatenate(([True], photo[1:] != photo[:-1], [True]))) if len(photo) else np.zeros(0, int)
    )
    sizes = np.diff(starts)
    pairs: list[tuple[int, int]] = []
    for start, size in zip(starts[:-1][sizes > 1], sizes[sizes > 1], strict=True):
        rows = order[start : start + size]
        close = np.triu(1.0 - faces.vectors[rows] @ faces.vectors[rows].T < SAME_DETECTION, 1)
        pairs += [(int(rows[a]), int(rows[b])) for a, b in np.argwhere(close)]
    return pairs


@dataclass(frozen=True)
class Marks:
    """What keeps faces apart: a face with a `key` can never be with one that has the same number as `opposite`."""

    row: Ints
    key: Ints
    opposite: Ints


def marks_of(faces: Faces, same: Sequence[tuple[int, int]], constraints: Constraints) -> Marks:
    """The marks of faces that share a photo with another face, and of those that a person set apart."""
    detections = groups(len(faces.photo), same)
    pairs = np.unique(np.stack([faces.photo, detections]), axis=1)  # each detection of a photo once
    several = np.bincount(pairs[0], minlength=1) > 1
    rows = [np.flatnonzero(several[faces.photo])]
    keys, opposites = [faces.photo[rows[0]]], [faces.photo[rows[0]]]
    first = int(faces.photo.max(initial=0)) + 1
    for number, (ones, others) in enumerate(constraints.cannot):
        for side, members in enumerate((ones, others)):
            rows.append(np.array(members, dtype=np.int64))
            keys.append(np.full(len(members), first + 2 * number + side))
            opposites.append(np.full(len(members), first + 2 * number + 1 - side))
    return Marks(*(np.concatenate(parts).astype(np.int64) for parts in (rows, keys, opposites)))


class Clusters:
    """Growing clusters: their sums of vectors, their sizes, and which of them can never come together."""

    def __init__(self, sums: Floats, sizes: Floats, label: Ints, marks: Marks) -> None:
        """`sums` (k, d) and `sizes` (k,) of the clusters, `label` (n,) cluster of each row, -1 for none."""
        self.sums = sums
        self.sizes = sizes
        self.label = label
        self.squares = np.einsum("ij,ij->i", sums, sums) / np.maximum(sizes, 1) ** 2
        self._marks = marks

    @classmethod
    def of(cls, vectors: Floats, start: Ints, same: Sequence[tuple[int, int]], marks: Marks) -> "Clusters":
        """The clusters that are there before anything is compared: `start` (n,) numbers them, -1 for faces that stay
        out. Faces that are the same detection (`same`) count once."""
        label = np.full(len(vectors), -1, dtype=np.int64)
        label[start >= 0] = np.unique(start[start >= 0], return_inverse=True)[1]
        weight = (start >= 0).astype(np.float32)
        weight[[b for _, b in same]] = 0.0
        return cls(*totals(vectors, label, weight), label, marks)

    def agglomerate(self, ones: Rows, others: Rows, calibration: Evidence, record: list[Merge] | None = None) -> None:
        """Merges pairs of clusters that are each other's likeliest partner, round by round, until no pair is more
        likely one person than two. `ones` and `others` are the rows that edges of the graph join.

        Mutual nearest neighbours (Murtagh 1983) over the edges of a graph (Fränti, Virmajoki, Hautamäki 2006).
        """
        a, b = edges(self.label[ones], self.label[others], len(self.sizes))
        score = self.score(a, b, calibration)
        while len(a):
            bar = calibration.bar(int(np.count_nonzero(self.sizes)))
            kept = score > bar - calibration.slack
            a, b, score = a[kept], b[kept], score[kept]
            chosen = likeliest(a, b, score, len(self.sizes), bar)
            if not len(chosen):
                return
            joined = self.joined(a[chosen], b[chosen])
            clash = self.clashing(joined)[joined[a[chosen]]]
            if clash.any():  # where several come together at once, only the likeliest pairs do
                single = mutual(a, b, score, len(self.sizes))
                single = single[np.isin(single, chosen[clash])]
                pairs = self.joined(a[single], b[single])
                refused = self.clashing(pairs)[pairs[a[single]]]
                score[single[refused]] = -np.inf
                chosen = np.concatenate((chosen[~clash], single[~refused]))
                joined = self.joined(a[chosen], b[chosen])
            if record is not None:
                self._record(a[chosen], b[chosen], record)
            moved = self.merge(joined)
            stale = moved[a] | moved[b]
            new_a, new_b = edges(joined[a[stale]], joined[b[stale]], len(self.sizes))
            a, b = np.concatenate((a[~stale], new_a)), np.concatenate((b[~stale], new_b))
            score = np.concatenate((score[~stale], self.score(new_a, new_b, calibration)))

    def member(self) -> Ints:
        """A row of each cluster, (k,), the first; -1 for one that is no more."""
        member = np.full(len(self.sizes), -1, dtype=np.int64)
        rows = np.flatnonzero(self.label >= 0)[::-1]
        member[self.label[rows]] = rows
        return member

    def score(self, a: Ints, b: Ints, calibration: Evidence) -> Floats:
        """Evidence that pairs of clusters are one person."""
        return calibration.evidence(*self.distances(a, b), self.sizes[a], self.sizes[b])

    def distances(self, a: Ints, b: Ints) -> tuple[Floats, Floats]:
        """Of pairs of clusters: the mean cosine distance between their faces, and half the squared distance of their
        centroids."""
        dots = np.empty(len(a), dtype=np.float32)
        for start in range(0, len(a), BLOCK):
            part = slice(start, start + BLOCK)
            dots[part] = np.einsum("ij,ij->i", self.sums[a[part]], self.sums[b[part]])
        dots /= self.sizes[a] * self.sizes[b]
        return 1.0 - dots, (self.squares[a] + self.squares[b]) / 2 - dots

    def joined(self, a: Ints, b: Ints) -> Ints:
        """Where each cluster goes if these pairs come together: the smallest number of those that are connected."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        target = np.arange(len(self.sizes))
        if not len(a):
            return target
        touched, flat = np.unique(np.concatenate((a, b)), return_inverse=True)
        links = (np.ones(len(a), np.int8), (flat[: len(a)], flat[len(a) :]))
        _, part = connected_components(coo_matrix(links, shape=(len(touched),) * 2), directed=False)
        _, first = np.unique(part, return_index=True)
        target[touched] = touched[first[part]]
        return target

    def clashing(self, joined: Ints) -> Flags:
        """Which clusters, by number, would hold faces that cannot be one person."""
        result = np.zeros(len(joined), dtype=np.bool_)
        marks = self._marks
        before = self.label[marks.row]
        changing = np.zeros(len(joined) + 1, dtype=np.bool_)  # label -1 reads the last entry
        changing[:-1] = joined != np.arange(len(joined))
        changing[joined[changing[:-1]]] = True
        here = changing[before]
        if not here.any():
            return result
        before, key, opposite = before[here], marks.key[here], marks.opposite[here]
        span = int(max(key.max(), opposite.max())) + 1
        has, lacks = (np.unique(np.stack((joined[before] * span + side, before)), axis=1) for side in (key, opposite))
        # a clash is a key of one old cluster that is the opposite of another one's
        spot = np.searchsorted(has[0], lacks[0])
        last = np.searchsorted(has[0], lacks[0], side="right")
        several = last - spot
        found = several > 0
        other = (several > 1) | (has[1][np.minimum(spot, has.shape[1] - 1)] != lacks[1])
        result[lacks[0][found & other] // span] = True
        return result

    def merge(self, joined: Ints) -> Flags:
        """Puts every cluster into the one that `joined` names; returns which ones changed."""
        gone = np.flatnonzero(joined != np.arange(len(joined)))
        moved = np.zeros(len(joined), dtype=np.bool_)
        if not len(gone):
            return moved
        into = joined[gone]
        order = np.argsort(into, kind="stable")
        gone, into = gone[order], into[order]
        starts = np.flatnonzero(np.concatenate(([True], into[1:] != into[:-1])))
        kept = into[starts]
        self.sums[kept] += np.add.reduceat(self.sums[gone], starts, axis=0)
        self.sizes[kept] += np.add.reduceat(self.sizes[gone], starts)
        self.sizes[gone] = 0
        self.squares[kept] = np.einsum("ij,ij->i", self.sums[kept], self.sums[kept]) / self.sizes[kept] ** 2
        self.label = np.append(joined, -1)[self.label]
        moved[gone] = True
        moved[kept] = True
        return moved

    def _record(self, a: Ints, b: Ints, record: list[Merge]) -> None:
        average, centroid = self.distances(a, b)
        for number, (one, other) in enumerate(zip(a, b, strict=True)):
            rows = (np.flatnonzero(self.label == one), np.flatnonzero(self.label == other))
            record.append(Merge(tuple(rows[0]), tuple(rows[1]), float(average[number]), float(centroid[number])))

    def keys(self, row: int) -> list[int]:
        """The keys of a row's marks."""
        return [key for key, _ in self._marked.get(row, ())]

    def opposites(self, row: int) -> list[int]:
        """The keys that a row cannot be with."""
        return [opposite for _, opposite in self._marked.get(row, ())]

    @cached_property
    def _marked(self) -> dict[int, list[tuple[int, int]]]:
        marked: dict[int, list[tuple[int, int]]] = {}
        marks = self._marks
        for row, key, opposite in zip(marks.row.tolist(), marks.key.tolist(), marks.opposite.tolist(), strict=True):
            marked.setdefault(row, []).append((key, opposite))
        return marked

    def refused(self, rows: Ints, clusters: Ints) -> Flags:
        """Which of the rows can never be in the cluster beside it."""
        marks = self._marks
        result = np.zeros(len(rows), dtype=np.bool_)
        if not len(marks.row):
            return result
        span = int(max(marks.key.max(), marks.opposite.max())) + 1
        inside = self.label[marks.row] >= 0
        there = set((self.label[marks.row[inside]] * span + marks.key[inside]).tolist())
        for number, (row, cluster) in enumerate(zip(rows.tolist(), clusters.tolist(), strict=True)):
            result[number] = any(cluster * span + opposite in there for opposite in self.opposites(row))
        return result


def totals(vectors: Floats, label: Ints, weight: Floats) -> tuple[Floats, Floats]:
    """Weighted sums (k, d) and total weights (k,) of the rows of each label; rows with label -1 do not count."""
    from scipy.sparse import coo_matrix

    count = int(label.max(initial=-1)) + 1
    rows = np.flatnonzero(label >= 0)
    sizes = np.bincount(label[rows], weights=weight[rows], minlength=count).astype(np.float32)
    places = (weight[rows], (label[rows], rows))
    sums = np.asarray(coo_matrix(places, shape=(count, len(vectors))).tocsr() @ vectors, dtype=np.float32)
    return sums, np.maximum(sizes, 1e-6)


def edges(a: Ints, b: Ints, count: int) -> tuple[Ints, Ints]:
    """Pairs of clusters, each once, smaller number first; without those of a cluster with itself or with none."""
    kept = (a != b) & (a >= 0) & (b >= 0)
    keys = np.minimum(a, b)[kept].astype(np.int64) * count + np.maximum(a, b)[kept]
    keys.sort()
    if len(keys):
        keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))]
    return keys // max(count, 1), keys % max(count, 1)


def mutual(a: Ints, b: Ints, score: Floats, count: int) -> Ints:
    """The edges that are the best of both their ends. Of equal ones the first counts."""
    best = np.full(count, -np.inf, dtype=np.float32)
    np.maximum.at(best, a, score)
    np.maximum.at(best, b, score)
    top = np.flatnonzero((score == best[a]) & (score == best[b]) & (score > -np.inf))
    first = np.full(count, len(score), dtype=np.int64)
    np.minimum.at(first, a[top], top)
    np.minimum.at(first, b[top], top)
    return np.asarray(top[(first[a[top]] == top) & (first[b[top]] == top)], dtype=np.int64)


def likeliest(a: Ints, b: Ints, score: Floats, count: int, bar: float) -> Ints:
    """The edges to merge in a round: the best of both their ends, and the best of one end that are sure anyway."""
    best = np.full(count, -np.inf, dtype=np.float32)
    np.maximum.at(best, a, score)
    np.maximum.at(best, b, score)
    worth = np.flatnonzero(score >= bar)
    one, other = score[worth] == best[a[worth]], score[worth] == best[b[worth]]
    sure = score[worth] >= bar + SURE
    single = worth[one & other]
    first = np.full(count, len(score), dtype=np.int64)
    np.minimum.at(first, a[single], single)
    np.minimum.at(first, b[single], single)
    chosen = (first[a[worth]] == worth) & (first[b[worth]] == worth)
    return np.asarray(worth[chosen | (sure & (one | other))], dtype=np.int64)


def attach(clusters: Clusters, vectors: Floats, ones: Rows, others: Rows, calibration: Calibration) -> Ints:
    """Labels with the faces of low quality added to the cluster that each clearly belongs to, -1 where there is none.
    They change nothing of the cluster."""
    label = clusters.label.copy()
    rows = np.concatenate((ones, others)).astype(np.int64)
    wanted = label[np.concatenate((others, ones))]
    open = (label[rows] < 0) & (wanted >= 0)
    keys = np.unique(rows[open] * len(clusters.sizes) + wanted[open])
    rows, wanted = keys // max(len(clusters.sizes), 1), keys % max(len(clusters.sizes), 1)
    if not len(rows):
        return label
    dots = np.einsum("ij,ij->i", vectors[rows], clusters.sums[wanted]) / clusters.sizes[wanted]
    centroid = (1.0 + clusters.squares[wanted]) / 2 - dots
    score = calibration.evidence(1.0 - dots, centroid, np.ones(len(rows), np.float32), clusters.sizes[wanted])
    fits = score >= calibration.bar(int(np.count_nonzero(clusters.sizes)))
    fits[fits] = ~clusters.refused(rows[fits], wanted[fits])
    taken: set[tuple[int, int]] = set()
    for number in np.flatnonzero(fits)[np.argsort(-score[fits], kind="stable")].tolist():
        row, cluster = int(rows[number]), int(wanted[number])
        if label[row] < 0 and not any((cluster, opposite) in taken for opposite in clusters.opposites(row)):
            label[row] = cluster
            taken.update((cluster, key) for key in clusters.keys(row))
    return label

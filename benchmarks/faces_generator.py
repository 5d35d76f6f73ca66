"""Made-up face embeddings that lie as far apart as real ones: people, their photos, and mistakes in their labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

DIMENSIONS = 128
#: length of the mean of all faces' unit vectors
MEAN = 0.916
#: axes at which the variances below were measured; in between they are interpolated on a logarithmic scale
AXES = (0, 1, 2, 4, 8, 16, 32, 64, 100)
#: variance of people's centres, and of one person's faces, along the axes
BETWEEN = (0.0127, 0.0113, 0.0079, 0.0063, 0.0035, 0.0021, 0.00087, 0.00016, 1e-6)
WITHIN = (0.00149, 0.00133, 0.00129, 0.00118, 0.00106, 0.0008, 0.00054, 0.0002, 1e-6)
#: how much the spread of a person's faces differs from person to person, and a face's from face to face: standard
#: deviations of a logarithm
PERSON_SCALE, FACE_SCALE = 0.10, 0.15
#: share of faces that are badly cropped or blurred, and how much farther out they lie
POOR, POOR_SCALE = 0.015, 1.8
#: people look alike in groups: how many groups, the share of the variance of centres that is within one, and how much
#: that differs from group to group (standard deviation of a logarithm)
GROUPS, WITHIN_GROUP, GROUP_SCALE = 20, 0.7, 0.2
#: a person's photos come from sessions: how many at most, and the share of the variance of faces that is between them
SESSIONS, BETWEEN_SESSIONS = 4, 0.4
#: faces a person: Pareto with this exponent, at least one, at most so many
TAIL, LARGEST = 1.1, 3000
#: share of faces whose label is another person's
LABEL_NOISE = 0.005


@dataclass(frozen=True)
class Made:
    """n made-up faces: unit vectors (n, 128), the person whose label each bears (n,), and its quality (n,)."""

    vectors: Floats
    people: Ints
    quality: Floats


def variances(at: tuple[float, ...]) -> NDArray[np.float64]:
    """The variance along each of the 128 axes."""
    return np.exp(np.interp(np.arange(DIMENSIONS), AXES, np.log(at)))


def make(count: int, seed: int = 0, sizes: Ints | None = None) -> Made:
    """`count` faces; `sizes` are the people's numbers of faces where they should not be heavy-tailed."""
    rng = np.random.default_rng(seed)
    if sizes is None:
        drawn = np.minimum(1.0 / rng.random(count) ** (1.0 / TAIL), LARGEST).astype(np.int64)
        people = np.repeat(np.arange(count), drawn)[:count]
    else:
        people = np.repeat(np.arange(len(sizes)), sizes)
    known = int(people.max()) + 1
    axes = np.sqrt(variances(BETWEEN)).astype(np.float32)
    group = rng.integers(0, GROUPS, known)
    middle = rng.standard_normal((GROUPS, DIMENSIONS)).astype(np.float32) * axes * np.sqrt(1 - WITHIN_GROUP)
    wide = np.exp(GROUP_SCALE * rng.standard_normal(GROUPS)).astype(np.float32)[group, None]
    own = rng.standard_normal((known, DIMENSIONS), dtype=np.float32) * axes
    centres = middle[group] + np.float32(np.sqrt(WITHIN_GROUP)) * wide * own
    centres[:, -1] += MEAN  # the mean direction is an axis along which hardly anything varies
    scale = np.exp(PERSON_SCALE * rng.standard_normal(known)).astype(np.float32)
    poor = rng.random(len(people)) < POOR
    face_scale = np.exp(FACE_SCALE * rng.standard_normal(len(people))).astype(np.float32) * np.where(
        poor, POOR_SCALE, 1
    )
    spread = np.sqrt(variances(WITHIN)).astype(np.float32)
    session = people * SESSIONS + rng.integers(0, SESSIONS, len(people))
    used, session = np.unique(session, return_inverse=True)
    sessions = rng.standard_normal((len(used), DIMENSIONS), dtype=np.float32) * spread * np.sqrt(BETWEEN_SESSIONS)
    vectors = np.empty((len(people), DIMENSIONS), dtype=np.float32)
    for start in range(0, len(people), 100_000):
        rows = slice(start, start + 100_000)
        noise = rng.standard_normal((len(people[rows]), DIMENSIONS), dtype=np.float32) * spread
        noise *= np.float32(np.sqrt(1 - BETWEEN_SESSIONS)) * face_scale[rows, None]
        vectors[rows] = centres[people[rows]] + (noise + sessions[session[rows]]) * scale[people[rows], None]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = rng.random(len(people)) < LABEL_NOISE
    people = np.where(wrong, rng.integers(0, known, len(people)), people)
    order = rng.permutation(len(people))
    quality = np.where(poor, 0.4, 0.8).astype(np.float32)
    return Made(vectors[order], people[order], quality[order])

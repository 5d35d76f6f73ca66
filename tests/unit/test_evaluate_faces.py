"""The figures of face verification, on similarities whose result is known by hand."""

from pathlib import Path

import numpy as np
import pytest

from daemon.evaluate.faces import Pair, cosine, evaluate, figures, most_central, read_pairs, verify
from daemon.evaluate.frame import LabelsInvalid, Options
from enrichers.contract import Face
from enrichers.faces import Faces
from enrichers.weights import ModelStore
from tests.conftest import pulled


@pytest.fixture
def people(tmp_path: Path) -> Path:
    for name, count in (("Ada", 3), ("Bob", 2)):
        (tmp_path / name).mkdir()
        for number in range(1, count + 1):
            (tmp_path / name / f"{name}_{number:04d}.jpg").touch()
    return tmp_path


def listed(folder: Path, text: str) -> Path:
    (folder / "pairs.txt").write_text(text)
    return folder / "pairs.txt"


def test_pairs_are_read_fold_by_fold(people: Path) -> None:
    file = listed(people, "2 1\nAda\t1\t3\nAda\t1\tBob\t2\n\nBob 1 2\nBob 1 Ada 2\n")
    pairs = read_pairs(file, people)
    assert [(p.first.name, p.second.name, p.same, p.fold) for p in pairs] == [
        ("Ada_0001.jpg", "Ada_0003.jpg", True, 0),
        ("Ada_0001.jpg", "Bob_0002.jpg", False, 0),
        ("Bob_0001.jpg", "Bob_0002.jpg", True, 1),
        ("Bob_0001.jpg", "Ada_0002.jpg", False, 1),
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("1 1\nAda 1 2\nAda 1 Bob 9\n", "Bob_0009.jpg"),  # no such photo
        ("1 1\nAda 1 2\n", "promises 2 pairs, and it has 1"),
        ("1 1\nAda 1 2\nAda one Bob 1\n", "line 3"),
        ("", "no list of pairs"),
        ("1 x\nAda 1 2\n", "no list of pairs"),
    ],
)
def test_wrong_lists_are_refused(people: Path, text: str, named: str) -> None:
    with pytest.raises(LabelsInvalid, match=named):
        read_pairs(listed(people, text), people)


def test_a_threshold_that_separates_gives_full_accuracy() -> None:
    similarities = np.array([0.9, 0.8, 0.2, 0.1] * 3)
    result = verify(similarities, np.array([True, True, False, False] * 3), np.repeat([0, 1, 2], 4))
    assert (result.accuracy, result.std, result.tar_at_far, result.wrong) == (1.0, 0.0, 1.0, ())
    assert result.threshold == pytest.approx(0.5)


def test_the_threshold_of_a_fold_comes_from_the_others() -> None:
    # the second fold lies lower as a whole: the first fold's threshold rejects its same pair
    similarities = np.array([0.9, 0.5, 0.4, 0.0])
    result = verify(similarities, np.array([True, False, True, False]), np.array([0, 0, 1, 1]))
    assert result.accuracy == pytest.approx(0.5)
    assert result.wrong == (1, 2)


@pytest.mark.parametrize("same", [True, False])
def test_a_pair_without_a_face_is_wrong_either_way(same: bool) -> None:
    similarities = np.array([0.9, 0.1, np.nan, 0.9, 0.1, 0.9])
    labels = np.array([True, False, same, True, False, True])
    result = verify(similarities, labels, np.array([0, 0, 0, 1, 1, 1]))
    assert result.accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert result.wrong == (2,)


def test_true_accepts_at_one_false_accept_in_a_thousand() -> None:
    rng = np.random.default_rng(0)
    others = rng.permutation(np.linspace(0, 0.5, 2000))  # two of 2,000 may be accepted
    own = np.concatenate([np.full(70, 0.6), np.full(30, 0.4)])
    similarities = np.concatenate([others, own])
    same = np.arange(len(similarities)) >= 2000
    assert verify(similarities, same, np.zeros(len(same), int)).tar_at_far == pytest.approx(0.7)
    similarities[:2] = 0.99  # exactly the two that are allowed
    assert verify(similarities, same, np.zeros(len(same), int)).tar_at_far == pytest.approx(0.7)
    similarities[2] = 0.99
    assert verify(similarities, same, np.zeros(len(same), int)).tar_at_far == pytest.approx(0)


def face(x: float, y: float, w: float, h: float) -> Face:
    return Face((x, y, w, h), ((0, 0),) * 5, 1.0, {}, {}, b"")


def test_the_face_of_a_photo_is_large_and_near_the_middle() -> None:
    middle, corner, bystander = face(80, 80, 90, 90), face(0, 0, 100, 100), face(115, 115, 20, 20)
    assert most_central([corner, bystander, middle], 250, 250) is middle
    assert most_central([], 250, 250) is None


def test_figures_count_photos_without_a_face() -> None:
    a, b, c = Path("a"), Path("b"), Path("c")
    pairs = [Pair(a, b, True, 0), Pair(a, c, False, 0), Pair(b, c, False, 1), Pair(a, b, True, 1)]
    one, other = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    full, _ = figures(pairs, {a: one, b: one * 3, c: other})
    assert (full["accuracy"], full["undetected"], full["pairs"], full["photos"]) == (1.0, 0, 4, 3)
    missing, verified = figures(pairs, {a: one, b: one, c: None})
    assert (missing["accuracy"], missing["undetected"], verified.wrong) == (0.5, 1, (1, 2))


def test_cosine() -> None:
    a, b = np.array([2, 0], np.float32), np.array([1, 1], np.float32)
    assert cosine(a, b) == pytest.approx(np.sqrt(0.5))
    assert np.isnan(cosine(a, None))


def test_labeled_faces_in_the_wild(eval_data: Path, model_store: ModelStore) -> None:
    """A sample of the real task; the whole of it: `enrichd evaluate faces`."""
    pulled(model_store, *(weights.name for weights in Faces(dict(Faces.defaults)).weights()))
    folder = eval_data / "lfw"
    found = evaluate(folder / "people", folder / "pairs.txt", Options(limit=20, seed=1, device="cpu"))
    assert (found["pairs"], found["undetected"]) == (20, 0)
    assert found["accuracy"] >= 0.9

"""Search: the image that a picture was made from comes first, proven where keypoints can."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.evaluate.edits import EDITS
from daemon.search import Gallery, Query, inner_picture, query
from enrichers.embedders import Embedding, unit
from enrichers.image import Image, Pixels
from enrichers.keypoints import Keypoints
from tests.unit.scene_images import textured


class ByColour:
    """Embeds a picture by its mean colour."""

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        return self.embed_pictures([image.pixels for image in images])

    def embed_pictures(self, pictures: Sequence[Pixels]) -> list[Embedding]:
        return [Embedding(unit(p.mean(axis=(0, 1))), np.zeros((0, 3), np.float32)) for p in pictures]


def gallery(pictures: Sequence[Pixels]) -> Gallery:
    vectors = np.stack([embedding.vector for embedding in ByColour().embed_pictures(pictures)])
    return Gallery(vectors, np.zeros((len(pictures), 0, 3), np.float32), lambda row: Keypoints.find(pictures[row], 200))


def without_keypoints(vectors: NDArray[np.float32], *regions: NDArray[np.float32]) -> Gallery:
    parts = np.stack(regions, axis=1) if regions else np.zeros((len(vectors), 0, vectors.shape[1]), np.float32)
    return Gallery(vectors, parts, lambda row: None)


def looking(*vectors: Sequence[float]) -> Query:
    nothing = Keypoints.find(np.zeros((9, 9, 3), np.uint8), 1)
    return Query(np.array(vectors, np.float32), (nothing,))


@pytest.mark.parametrize("edit", ["mirror", "turn_90", "banner", "screenshot"])
def test_keypoints_prove_the_right_one_where_vectors_cannot_tell(edit: str) -> None:
    pictures = [textured(seed, 480, 640) for seed in range(6)]
    edited = EDITS[edit](pictures[4], np.random.default_rng(0))
    matches = gallery(pictures).search(query(edited, ByColour()), 3)
    assert matches[0].index == 4 and matches[0].same
    assert not any(match.same for match in matches[1:])


def test_every_copy_is_proven() -> None:
    pictures = [textured(seed, 480, 640) for seed in (4, 1, 2, 4)]
    matches = gallery(pictures).search(query(pictures[0], ByColour()), 4)
    assert {match.index for match in matches if match.same} == {0, 3}


def test_without_proof_the_nearest_vector_comes_first() -> None:
    vectors = np.eye(3, dtype=np.float32)
    matches = without_keypoints(vectors).search(looking([0, 0.9, 0.1]), 2)
    assert [match.index for match in matches] == [1, 2]
    assert not matches[0].same and 0 <= matches[1].score <= matches[0].score <= 1


def test_the_best_of_several_views_counts() -> None:
    matches = without_keypoints(np.eye(3, dtype=np.float32)).search(looking([1, 0.2, 0], [0, 0, 1]), 1)
    assert matches[0].index == 2


def test_a_part_of_an_image_is_found_as_well_as_the_whole() -> None:
    vectors = np.eye(4, dtype=np.float32)
    matches = without_keypoints(vectors, vectors[[1, 2, 3, 0]], vectors[[0, 0, 0, 0]]).search(
        looking([0, 0, 0.1, 1]), 4
    )
    assert {match.index for match in matches[:2]} == {3, 2}  # the whole of 3, a part of 2
    assert sorted(match.index for match in matches) == [0, 1, 2, 3]


@pytest.mark.parametrize("images", [1, 2, 19, 20, 60])  # from 20 on, the mean is taken off
def test_collections_of_any_size_give_no_more_than_they_hold(images: int) -> None:
    vectors = np.random.default_rng(0).random((images, 8), dtype=np.float32)
    matches = without_keypoints(vectors).search(looking(vectors[-1].tolist()), 50, min_score=0)
    assert len(matches) == min(images, 50)
    assert matches[0].index == images - 1


def test_what_is_like_nothing_finds_nothing_once_there_is_a_mean() -> None:
    many = without_keypoints(np.eye(40, dtype=np.float32))
    nowhere = looking([1.0] * 40)  # as near to all of them as their mean is
    assert many.search(nowhere, 5) == []
    assert len(many.search(nowhere, 5, min_score=0)) == 5
    assert [match.index for match in many.search(looking([0.0] * 7 + [1.0] + [0.0] * 32), 5)] == [7]
    few = without_keypoints(np.eye(40, dtype=np.float32)[:19])  # too few to tell what is common
    assert len(few.search(nowhere, 5)) == 5


def test_what_keypoints_prove_is_found_whatever_its_score() -> None:
    pictures = [textured(seed, 480, 640) for seed in range(6)]
    edited = EDITS["mirror"](pictures[4], np.random.default_rng(0))
    [match] = gallery(pictures).search(query(edited, ByColour()), 3, min_score=1.0)
    assert (match.index, match.same) == (4, True)


def test_the_picture_inside_a_page_is_found() -> None:
    picture = textured(7, 480, 640)
    inside = inner_picture(EDITS["screenshot"](picture, np.random.default_rng(2)))
    assert inside is not None
    assert inside.shape[1] / inside.shape[0] == pytest.approx(640 / 480, rel=0.1)
    assert abs(float(inside.mean()) - float(picture.mean())) < 8


def test_the_picture_inside_a_frame_is_found() -> None:
    inside = inner_picture(EDITS["frame"](textured(8, 480, 640), np.random.default_rng(3)))
    assert inside is not None and inside.shape[0] == pytest.approx(480, abs=12)


@pytest.mark.parametrize("picture", [textured(9), np.full((50, 70, 3), 200, np.uint8)])
def test_a_picture_with_nothing_inside_is_left_alone(picture: Pixels) -> None:
    assert inner_picture(picture) is None


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_changes_the_picture_and_leaves_its_source(name: str) -> None:
    picture = textured(10)
    before = picture.copy()
    edited = EDITS[name](picture, np.random.default_rng(0))
    assert np.array_equal(picture, before)
    assert edited.dtype == np.uint8 and edited.shape[2] == 3
    assert edited.shape != picture.shape or not np.array_equal(edited, picture)


@pytest.mark.parametrize(("name", "share"), [("crop_50", 0.5), ("crop_25", 0.25), ("half", 0.25), ("quarter", 0.0625)])
def test_strength_of_edits_is_fixed(name: str, share: float) -> None:
    edited = EDITS[name](textured(11), np.random.default_rng(0))
    assert edited.shape[0] * edited.shape[1] / (240 * 320) == pytest.approx(share, rel=0.03)


@pytest.mark.parametrize("name", EDITS)
def test_edits_take_the_smallest_picture(name: str) -> None:
    assert EDITS[name](np.zeros((1, 1, 3), np.uint8), np.random.default_rng(0)).size > 0

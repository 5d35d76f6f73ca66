"""Similarity: vectors, hashes and keypoints that survive what people do to pictures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from daemon.evaluate.edits import EDITS
from enrichers.contract import Result
from enrichers.embedders import pack_regions, unpack_regions
from enrichers.hashes import dhash, distance
from enrichers.image import Pixels
from enrichers.keypoints import Keypoints, agreeing
from enrichers.properties import phash
from enrichers.similarity import Similarity
from tests.unit.scene_images import CountingNetwork, OneNetwork, image, textured


def edited(name: str, picture: Pixels) -> Pixels:
    return EDITS[name](picture, np.random.default_rng(1))


def answer(picture: Pixels, **settings: Any) -> Mapping[str, Any]:
    enricher = Similarity({**Similarity.defaults, **settings})
    enricher.load(OneNetwork(CountingNetwork()))
    outcome = enricher.enrich([image(picture)])[0]
    assert isinstance(outcome, Result)
    return outcome.answer


def test_answer_has_a_unit_vector_hashes_and_packed_keypoints() -> None:
    found = answer(textured(0), keypoints=50)
    assert found["vector"].shape == (1280,) and found["vector"].dtype == np.float32
    assert np.linalg.norm(found["vector"]) == pytest.approx(1, abs=1e-5)
    assert len(found["regions"]) == 4 * 1280
    assert len(found["phash"]) == len(found["dhash"]) == 16
    stored = found["keypoints"]
    assert 0 < stored["count"] <= 50
    assert len(stored["points"]) == 4 * stored["count"] and len(stored["descriptors"]) == 32 * stored["count"]


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 400, 3), (200, 200, 3)])
def test_a_picture_without_any_structure_has_no_keypoints(shape: tuple[int, int, int]) -> None:
    found = answer(np.full(shape, 128, np.uint8))
    assert found["keypoints"] == {"count": 0, "points": b"", "descriptors": b""}


@pytest.mark.parametrize("make", [phash, dhash])
@pytest.mark.parametrize("edit", ["jpeg_30", "half", "brighter", "pale"])
def test_hashes_of_near_duplicates_are_near(make: Any, edit: str) -> None:
    picture = textured(1)
    assert distance(make(picture), make(edited(edit, picture))) <= 10


@pytest.mark.parametrize("make", [phash, dhash])
def test_hashes_of_different_pictures_are_far(make: Any) -> None:
    assert distance(make(textured(1)), make(textured(2))) > 16


def test_distance_counts_bits() -> None:
    assert distance("0000000000000000", "8000000000000001") == 2


@pytest.mark.parametrize("edit", ["turn_5", "turn_90", "turn_180", "crop_50", "grey", "screenshot"])
def test_keypoints_find_the_picture_in_its_edits_and_in_no_other(edit: str) -> None:
    picture = textured(3, 480, 640)
    query = Keypoints.find(edited(edit, picture), 800, 480)
    assert agreeing(query, Keypoints.find(picture, 200)) >= 15
    assert agreeing(query, Keypoints.find(textured(4, 480, 640), 200)) < 10


def test_keypoints_survive_packing() -> None:
    found = Keypoints.find(textured(5), 30)
    again = Keypoints.unpack(*found.pack())
    assert np.array_equal(again.points, found.points) and np.array_equal(again.descriptors, found.descriptors)


def test_regions_survive_packing() -> None:
    regions = np.random.default_rng(0).random((4, 64), dtype=np.float32)
    regions /= np.linalg.norm(regions, axis=1, keepdims=True)
    again = unpack_regions(pack_regions(regions), 64)
    assert again.shape == (4, 64) and (again * regions).sum(axis=1).min() > 0.999


def test_no_regions_pack_to_nothing() -> None:
    assert pack_regions(np.zeros((0, 64), np.float32)) == b"" and unpack_regions(b"", 64).shape == (0, 64)


def test_no_keypoints_agree_with_nothing() -> None:
    empty = Keypoints.find(np.zeros((40, 40, 3), np.uint8), 30)
    assert agreeing(empty, Keypoints.find(textured(5), 30)) == 0


def test_fingerprint_changes_with_the_number_of_keypoints() -> None:
    usual, other = (Similarity({**Similarity.defaults, "keypoints": count}) for count in (200, 100))
    assert usual.fingerprint({}) != other.fingerprint({})

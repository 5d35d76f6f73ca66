"""The faces enricher on networks that see what the test painted, and on the real ones where they have been pulled."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from enrichers.contract import Result
from enrichers.errors import SettingInvalid
from enrichers.faces import Faces
from enrichers.image import Facts, Image, Pixels
from enrichers.loading import ProcessLoader
from enrichers.weights import ModelStore
from tests.conftest import pulled

#: half the side of a painted face
HALF = 20


def image(pixels: Pixels, width: int | None = None, height: int | None = None) -> Image:
    h, w = pixels.shape[:2]
    width, height = width or w, height or h
    return Image(0, pixels, width, height, Facts("PNG", 1, "0" * 64, width, height))


def painted(*middles: tuple[int, int], size: tuple[int, int] = (200, 300)) -> Pixels:
    pixels = np.full((*size, 3), 40, np.uint8)
    for x, y in middles:
        pixels[y - HALF : y + HALF, x - HALF : x + HALF] = (250, 90, 30)
    return pixels


class SquareDetector:
    """CenterFace's outputs for every orange square of a canvas, as large as it is."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        batch = inputs["image"]
        n, _, height, width = batch.shape
        shape = (height // 4, width // 4)
        out = {"heatmap": np.zeros((n, 1, *shape), np.float32)}
        out |= {k: np.zeros((n, c, *shape), np.float32) for k, c in (("scale", 2), ("offset", 2), ("landmarks", 10))}
        for row, pixels in enumerate(batch.transpose(0, 2, 3, 1)):
            orange = (np.abs(pixels - [250, 90, 30]).max(axis=2) < 40).astype(np.uint8)
            _, _, stats, centroids = cv2.connectedComponentsWithStats(orange)
            for (_, _, w, h, _), (x, y) in list(zip(stats, centroids, strict=True))[1:]:
                r, c = int(y) // 4, int(x) // 4
                out["heatmap"][row, 0, r, c] = 0.9
                out["scale"][row, :, r, c] = np.log([h / 4, w / 4])
                out["offset"][row, :, r, c] = (y + 0.5) / 4 - r - 0.5, (x + 0.5) / 4 - c - 0.5
                out["landmarks"][row, :, r, c] = [0.35, 0.3, 0.35, 0.7, 0.55, 0.5, 0.75, 0.35, 0.75, 0.65]
        return out


class MeanColour:
    """An embedding that is the chip's mean colour."""

    inputs = ("chips",)
    calls = 0

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.calls += 1
        return {"embeddings": inputs["chips"].astype(np.float32).mean(axis=(1, 2))}


class PaintedLoader:
    device = "cpu"
    threads = 1

    def __init__(self) -> None:
        self.networks: dict[str, Any] = {"centerface": SquareDetector(), "dlib": MeanColour()}

    def network(self, name: str) -> Any:
        return self.networks[name]

    def path(self, name: str) -> str:
        raise AssertionError


#: no attributes, which the painted networks do not have
PAINTED = {"age": "", "gender": "", "emotion": ""}


def loaded(loader: Any, **settings: Any) -> Faces:
    without = PAINTED if isinstance(loader, PaintedLoader) else {}
    enricher = Faces({**Faces.defaults, **without, **settings})
    enricher.load(loader)
    return enricher


def results(enricher: Faces, *images: Image) -> list[Result]:
    found = enricher.enrich(images)
    assert all(isinstance(r, Result) for r in found)
    return [r for r in found if isinstance(r, Result)]


def test_each_image_gets_its_own_faces() -> None:
    loader = PaintedLoader()
    pictures = [painted((60, 60), (200, 120)), painted(), painted((150, 100)), painted((50, 50), size=(1000, 700))]
    found = results(loaded(loader), *(image(p) for p in pictures))
    assert [r.answer["count"] for r in found] == [2, 0, 1, 1]
    assert [len(r.faces) for r in found] == [2, 0, 1, 1]
    for face in (*found[0].faces, *found[2].faces):
        assert face.box[2:] == pytest.approx((40, 40), abs=2)
        assert face.embeddings["dlib"].shape == (3,)
    middles = sorted((f.box[0] + 20, f.box[1] + 20) for f in found[0].faces)
    assert middles == [pytest.approx((60, 60), abs=2), pytest.approx((200, 120), abs=2)]


def test_faces_of_several_images_share_calls_of_the_embedding() -> None:
    loader = PaintedLoader()
    results(loaded(loader, views="plain"), *(image(painted((60, 60))) for _ in range(6)))
    assert loader.networks["dlib"].calls == 1


def test_boxes_and_landmarks_are_in_pixels_of_the_file() -> None:
    (result,) = results(loaded(PaintedLoader()), image(painted((60, 80)), width=3000, height=2000))
    (face,) = result.faces
    assert face.box == pytest.approx((400, 600, 400, 400), abs=20)
    assert face.landmarks[0] == pytest.approx((400 + 0.3 * 400, 600 + 0.35 * 400), abs=20)
    assert face.quality["size"] == pytest.approx(400, abs=20)


def test_a_box_ends_at_the_edge_of_the_picture() -> None:
    (result,) = results(loaded(PaintedLoader(), min_score=0.1), image(painted((25, 60))[:, 10:]))
    (face,) = result.faces
    assert face.box[0] >= 0
    assert face.box[0] + face.box[2] <= 290


def test_small_faces_are_left_out() -> None:
    picture = image(painted((60, 60)))
    (kept,) = results(loaded(PaintedLoader(), min_size=30), picture)
    (left_out,) = results(loaded(PaintedLoader(), min_size=50), picture)
    assert (kept.answer["count"], left_out.answer["count"]) == (1, 0)


def test_the_largest_faces_are_kept_and_come_first() -> None:
    pixels = painted((60, 60), (200, 120))
    pixels[10:25, 250:265] = (250, 90, 30)
    (all_of_them,) = results(loaded(PaintedLoader(), min_size=1), image(pixels))
    sizes = [face.quality["size"] for face in all_of_them.faces]
    assert len(sizes) == 3
    assert sizes == sorted(sizes, reverse=True)
    (two,) = results(loaded(PaintedLoader(), min_size=1, max_faces=2), image(pixels))
    assert [face.quality["size"] for face in two.faces] == sizes[:2]


def test_thumbnail_is_a_small_jpeg_of_the_face() -> None:
    (result,) = results(loaded(PaintedLoader(), thumbnail_side=64), image(painted((60, 60))))
    thumbnail = result.faces[0].thumbnail
    assert thumbnail[:2] == b"\xff\xd8"
    assert len(thumbnail) < 8000
    decoded = cv2.imdecode(np.frombuffer(thumbnail, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (64, 64, 3)
    assert np.abs(decoded[32, 32].astype(int) - [30, 90, 250]).max() < 25  # blue first


class Suspicious(SquareDetector):
    """Believes in every square, except when it fills half of a small canvas: no face survives the second look."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        out = super().run(inputs)
        if inputs["image"].shape[2:] == (128, 128):
            out["heatmap"] *= 0.4
        return out


def test_what_is_not_found_again_on_the_second_look_is_no_face() -> None:
    loader = PaintedLoader()
    loader.networks["centerface"] = Suspicious()
    (result,) = results(loaded(loader), image(painted((60, 60))))
    assert result.answer["count"] == 0
    (lenient,) = results(loaded(loader, min_score=0.3), image(painted((60, 60))))
    assert lenient.faces[0].score == pytest.approx(0.36)


class OnlyLarge(SquareDetector):
    """Is certain of squares of at least 16 pixels, and has an inkling of smaller ones."""

    def __init__(self) -> None:
        self.widths: list[int] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        out = super().run(inputs)
        small = np.exp(out["scale"][:, :1]) * 4 < 16
        out["heatmap"][small & (out["heatmap"] > 0)] = 0.25
        self.widths.append(inputs["image"].shape[3])
        return out


def test_a_crowd_gets_a_finer_look_and_a_portrait_does_not() -> None:
    crowd = painted(*((x, 300) for x in range(100, 1200, 100)), size=(600, 1280))  # faces of 40 pixels
    loader = PaintedLoader()
    detector = loader.networks["centerface"] = OnlyLarge()
    (fine,) = results(loaded(loader, detect_side=320), image(crowd))
    assert fine.answer["count"] == 11
    assert 1280 in detector.widths
    portrait = np.full((600, 1280, 3), 40, np.uint8)
    portrait[100:500, 400:800] = (250, 90, 30)
    detector.widths.clear()
    (found,) = results(loaded(loader, detect_side=320), image(portrait))
    assert found.answer["count"] == 1
    assert 1280 not in detector.widths


class Infinite(SquareDetector):
    """Gives every square a size that overflows."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        out = super().run(inputs)
        out["scale"][out["scale"] != 0] = 100
        return out


def test_faces_of_no_possible_size_are_dropped() -> None:
    loader = PaintedLoader()
    loader.networks["centerface"] = Infinite()
    with np.errstate(over="ignore", invalid="ignore"):
        (result,) = results(loaded(loader), image(painted((60, 60))))
    assert result.answer["count"] == 0


def test_a_wrong_setting_names_the_valid_ones() -> None:
    with pytest.raises(SettingInvalid, match="plain"):
        Faces({**Faces.defaults, "views": "many"})


@pytest.mark.parametrize("change", [{"views": "plain"}, {"age": ""}, {"min_score": 0.6}])
def test_fingerprint_changes_with_the_answer(change: Mapping[str, Any]) -> None:
    default, other = Faces(dict(Faces.defaults)), Faces({**Faces.defaults, **change})
    assert default.fingerprint({}) == Faces(dict(Faces.defaults)).fingerprint({})
    assert default.fingerprint({}) != other.fingerprint({})


@pytest.fixture
def real(model_store: ModelStore) -> Faces:
    pulled(model_store, *(w.name for w in Faces(dict(Faces.defaults)).weights()))
    return loaded(ProcessLoader(model_store, "cpu", 1))


def test_real_networks_find_the_astronaut_and_not_the_cat(real: Faces) -> None:
    astronaut = np.ascontiguousarray(data.astronaut()[..., :3])
    found = results(
        real, image(astronaut), image(np.ascontiguousarray(data.chelsea())), image(astronaut[:, ::-1].copy())
    )
    assert [r.answer["count"] for r in found] == [1, 0, 1]
    face, mirrored = found[0].faces[0], found[2].faces[0]
    x, y, w, h = face.box
    assert 150 < x < x + w < 290  # columns of the photo that the face is in
    assert 40 < y < y + h < 220
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert x < left_eye[0] < nose[0] < right_eye[0] < x + w
    assert y < left_eye[1] < nose[1] < left_mouth[1] < y + h
    assert left_mouth[0] < right_mouth[0]
    a, b = face.embeddings["dlib"], mirrored.embeddings["dlib"]
    assert a.shape == (128,)
    assert float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) > 0.98  # the mirror image is the same person
    for attributes in (face.attributes, mirrored.attributes):
        assert attributes["gender"] == "female"
        assert attributes["emotion"] == "happy"
        assert 20 <= attributes["age"] <= 55
        low, high = attributes["age_range"]
        assert low <= attributes["age"] <= high
    assert abs(face.quality["pose"]["yaw"] + mirrored.quality["pose"]["yaw"]) < 5


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 1, 3), np.uint8),
        np.full((1, 3000, 3), 255, np.uint8),  # a line
        np.full((3000, 2, 3), 128, np.uint8),
        np.random.default_rng(0).integers(0, 256, (333, 777, 3)).astype(np.uint8),  # noise
    ],
)
def test_real_networks_find_nothing_in_nothing(real: Faces, pixels: Pixels) -> None:
    (found,) = results(real, image(pixels))
    assert found.answer["count"] == 0


def test_real_networks_read_the_same_face_at_every_size(real: Faces) -> None:
    astronaut = np.ascontiguousarray(data.astronaut()[..., :3])
    small = np.asarray(cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA), np.uint8)
    large = np.asarray(cv2.resize(astronaut, (1500, 1500), interpolation=cv2.INTER_CUBIC), np.uint8)
    vectors = [r.faces[0].embeddings["dlib"] for r in results(real, *(image(p) for p in (astronaut, small, large)))]
    for vector in vectors[1:]:
        assert float(vector @ vectors[0] / np.linalg.norm(vector) / np.linalg.norm(vectors[0])) > 0.95

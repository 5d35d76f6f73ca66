"""Faces written as pictures: where they go, what is on them, and that one bad image stops nothing."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bson import ObjectId
from skimage import data
from typer.testing import CliRunner

from daemon.cli.faces import app
from daemon.config import Config
from daemon.face_export import Cut, Job, Mark, NothingToExport, cut_face, dotted, export, folder_jobs, folder_name
from enrichers.alignment import template
from enrichers.weights import ModelStore
from tests.conftest import pulled


def test_jobs_keep_the_folders(tmp_path: Path) -> None:
    for name in ("ada/1.jpg", "ada/2.png", "bob/1.jpg", "bob/1.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    targets = [str(job.target) for job in folder_jobs(tmp_path, Path("out"))]
    assert targets == ["out/ada/1", "out/ada/2", "out/bob/1.jpg", "out/bob/1.png"]  # two files of one name keep both


def test_a_folder_without_images_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(NothingToExport, match=tmp_path.name):
        folder_jobs(tmp_path, Path("out"))


ID = ObjectId("0123456789abcdef01234567")


@pytest.mark.parametrize(
    ("identity", "name", "folder"),
    [
        (None, None, "unknown"),
        (ID, None, "0123456789abcdef01234567"),
        (ID, "Grace Hopper", "Grace Hopper"),
        (ID, "../../etc", "-..-etc"),  # leads nowhere else
        (ID, " . ", "0123456789abcdef01234567"),
        (ID, 'a"b\x00c', "a-b-c"),
    ],
)
def test_folder_names(identity: Any, name: str | None, folder: str) -> None:
    assert folder_name(identity, {ID: name}) == folder


def test_dotted() -> None:
    document = {"a": {"b": 1}, "c": 2}
    assert (dotted(document, "a.b"), dotted(document, "c"), dotted(document, "c.d"), dotted(document, "x")) == (
        1,
        2,
        None,
        None,
    )


def dots(landmarks: Any) -> Any:
    picture = np.zeros((400, 400, 3), np.uint8)
    for x, y in landmarks:
        cv2.circle(picture, (round(x), round(y)), 5, (255, 255, 255), -1)
    return picture


@pytest.mark.parametrize("margin", [0.0, 0.25, 0.6])
def test_an_aligned_face_is_upright_and_has_its_margin(margin: float) -> None:
    angle = np.radians(30)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (template("dlib", 150) - 75) @ rotation.T + 200
    cut = cut_face(dots(landmarks), np.array([100, 100, 200, 200]), landmarks, Cut(size=150, margin=margin))
    expected = (template("dlib", 150) - 75) * 1.5 / (1 + 2 * margin) + 75
    for x, y in expected:
        assert cut[round(y), round(x), 0] > 200


def test_an_upright_face_is_the_square_around_its_box() -> None:
    picture = np.zeros((400, 400, 3), np.uint8)
    picture[150:250, 120:200] = 255
    landmarks = np.array([[140, 180], [180, 180], [160, 200], [145, 225], [175, 225]])
    cut = cut_face(picture, np.array([120, 150, 80, 100]), landmarks, Cut(size=100, margin=0, aligned=False))
    assert (cut[:, 15:85] == 255).all()
    assert (cut[:, :5] == 0).all()


@pytest.fixture
def config(model_store: ModelStore) -> Config:
    pulled(model_store, "centerface")
    return Config.model_validate({"models": {"cache": model_store.cache}, "pipeline": {"device": "cpu"}})


def photos(folder: Path) -> None:
    astronaut = data.astronaut()[..., ::-1]
    (folder / "eileen").mkdir(parents=True)
    cv2.imwrite(str(folder / "eileen" / "one.png"), astronaut)
    cv2.imwrite(str(folder / "eileen" / "two.png"), np.hstack([astronaut, astronaut[:, ::-1]]))
    cv2.imwrite(str(folder / "cat.png"), data.chelsea()[..., ::-1])
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")


def test_export_of_a_folder_on_real_networks(tmp_path: Path, config: Config) -> None:
    photos(tmp_path / "in")
    jobs = folder_jobs(tmp_path / "in", tmp_path / "out")
    parts = list(export(iter(jobs), config, Cut(size=96, every=True), workers=1))
    assert sum(p.images for p in parts) == 4
    assert sum(p.faces for p in parts) == 3
    assert sum(p.without_face for p in parts) == 1
    assert [Path(name).name for p in parts for name, _ in p.failures] == ["broken.jpg"]
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert written == ["eileen/one.png", "eileen/two-2.png", "eileen/two.png"]
    one, two, mirrored = (cv2.imread(str(tmp_path / "out" / "eileen" / f"{n}.png")) for n in ("one", "two", "two-2"))
    assert one.shape == (96, 96, 3)
    closest = min(np.abs(one.astype(int) - other).mean() for other in (two, mirrored))
    assert closest < 12  # the same face, cut the same way


def test_export_of_marked_faces_looks_for_none(tmp_path: Path, config: Config) -> None:
    landmarks = template("dlib", 150) + 100
    cv2.imwrite(str(tmp_path / "dots.png"), dots(landmarks))
    mark = Mark(
        (100, 100, 150, 150), tuple((float(x), float(y)) for x, y in landmarks), tmp_path / "out" / "a" / "face"
    )
    (part,) = export(iter([Job(tmp_path / "dots.png", tmp_path / "out", (mark,))]), config, Cut(size=150), workers=1)
    assert (part.images, part.faces) == (1, 1)
    assert cv2.imread(str(tmp_path / "out" / "a" / "face.png"))[48, 47, 0] > 200


def test_the_command_prints_a_summary(tmp_path: Path, config: Config) -> None:
    photos(tmp_path / "in")
    arguments = [str(tmp_path / "out"), str(tmp_path / "in"), "--json", "--workers", "1", "--size", "64"]
    result = CliRunner().invoke(app, ["export", *arguments, "--set", f"models.cache={config.models.cache}"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["images"], summary["faces"], summary["without_face"], summary["failed"]) == (4, 2, 1, 1)
    assert summary["failures"][0]["image"].endswith("broken.jpg")


@pytest.mark.parametrize("arguments", [["out"], ["out", ".", "--from-db"]])
def test_the_command_wants_one_kind_of_input(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["export", *arguments]).exit_code == 2

"""What distances mean: the shipped calibrations, and a user's own."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer import Typer
from typer.testing import CliRunner

from benchmarks.faces_generator import make
from daemon import calibration
from daemon.calibrate import TooFewPeople
from daemon.calibration import (
    CalibrationInvalid,
    CalibrationMissing,
    Calibrations,
    as_toml,
    read_tables,
)
from daemon.cli.calibrate import register
from daemon.cli.options import FileUnwritable
from daemon.config import Config
from daemon.doctor import examine
from daemon.evaluate.people import Photo, arranged
from tests.people import MODEL, face, vector

SHIPPED = Calibrations.load().of(MODEL)


def test_a_file_adds_models_and_comes_before_the_shipped_values(tmp_path: Path) -> None:
    own, other = replace(SHIPPED, people=7.0), replace(SHIPPED, model="glint 360k.r100")
    file = tmp_path / "calibration.toml"
    file.write_text(as_toml(own) + "\n" + as_toml(other))
    known = Calibrations.load(file)
    assert known.of(MODEL).people == 7.0
    assert known.of("glint 360k.r100").weights == SHIPPED.weights  # a name that TOML has to quote
    assert Calibrations.load().of(MODEL).people == SHIPPED.people


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    file = tmp_path / "calibration.toml"
    file.write_text(as_toml(SHIPPED))
    assert read_tables(file) == {MODEL: SHIPPED}


def test_the_distances_of_one_model_say_nothing_of_another() -> None:
    assert Calibrations.load().get("facenet") is None
    with pytest.raises(CalibrationMissing, match=r"'facenet' has no calibration.*enrichd calibrate"):
        Calibrations.load().of("facenet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[dlib", "cannot be read"),  # no TOML
        ("[dlib]\nknots = []\n", "dlib.knots: List should have at least 2 items"),
        (as_toml(SHIPPED).replace("people", "persons"), "dlib.people: Field required"),
        (as_toml(SHIPPED).replace("people = ", "people = -"), "dlib.people: Input should be greater than 0"),
        (as_toml(SHIPPED).replace("weights = [", "weights = [1, "), "dlib.weights: List should have at most 8 items"),
        (as_toml(SHIPPED).replace("weights = [", "weights = [nan, "), "dlib.weights"),
        (as_toml(SHIPPED).replace("[[0.005,", "[[0.5,"), "dlib.knots: Value error, distances must rise"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "calibration.toml"
    file.write_text(text)
    with pytest.raises(CalibrationInvalid) as raised:
        Calibrations.load(file)
    assert str(raised.value).startswith(str(file))
    assert message in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationInvalid, match=r"nothing\.toml cannot be read: No such file"):
        Calibrations.load(tmp_path / "nothing.toml")


def show(monkeypatch: pytest.MonkeyPatch, faces: Sequence[tuple[int, NDArray[np.float32]]]) -> None:
    """Photos that show these people, in the place of files that a network looks at."""
    photos = [
        Photo(Path(f"{number}.jpg"), f"person {who}", str(number), face(who, 0, embeddings={"mine": embedding}), ())
        for number, (who, embedding) in enumerate(faces)
    ]
    monkeypatch.setattr("daemon.evaluate.people.photos_of", lambda folder, options: [])
    monkeypatch.setattr("daemon.evaluate.people.read", lambda labelled, options: arranged(photos))


def invoke(*arguments: object) -> str:
    app = Typer()
    register(app)
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False).stdout


def test_the_command_adds_a_model_to_the_file_and_reports_on_the_other_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(0, 0, np.full(80, 4))
    show(monkeypatch, list(zip(made.people.tolist(), made.vectors, strict=True)))
    file = tmp_path / "calibration.toml"
    file.write_text(as_toml(SHIPPED))
    assert json.loads(invoke(tmp_path, "-o", file, "--json"))["other_half"]["bcubed_f"] > 0.9
    found = Calibrations.load(file)
    assert found.of(MODEL) == SHIPPED
    assert found.of("mine").people > 0
    with pytest.raises(FileUnwritable, match="There is no folder"):
        invoke(tmp_path, "-o", "/nowhere/mine.toml")


def test_a_model_whose_strangers_are_far_apart_is_calibrated_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(0, 0, np.full(80, 4))
    centred = made.vectors - made.vectors.mean(axis=0)  # strangers are at right angles, as margin losses put them
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    show(monkeypatch, list(zip(made.people.tolist(), centred, strict=True)))
    report = json.loads(invoke(tmp_path, "--json"))
    assert report["other_half"]["bcubed_f"] > 0.85
    distances, ratios = zip(*report["calibration"]["knots"], strict=True)
    assert np.interp(0.5, distances, ratios) > 0 > np.interp(1.1, distances, ratios)


def test_people_whom_nobody_confuses_calibrate_a_model_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show(monkeypatch, [(who, vector(who, shot)) for who in range(12) for shot in range(4)])
    assert json.loads(invoke(tmp_path, "--json"))["other_half"]["bcubed_f"] == 1.0


def test_two_people_are_too_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show(monkeypatch, [(who, vector(who, shot)) for who in range(2) for shot in range(4)])
    with pytest.raises(TooFewPeople, match="at least four people"):
        invoke(tmp_path, "--all")


@pytest.mark.parametrize("known", [True, False])
async def test_the_doctor_tells_of_an_embedding_model_without_a_calibration(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not known:
        monkeypatch.setattr(calibration, "shipped", dict)
    config = Config.model_validate(
        {
            "enrichers": {"enabled": ["faces"]},
            "mongo": {"uri": "mongodb://127.0.0.1:1/", "timeout_s": 0.1},
            "pipeline": {"device": "cpu"},
        }
    )
    [finding] = [finding for finding in await examine(config) if finding.check == "calibration"]
    assert finding.state == ("ok" if known else "failed")
    assert known or "enrichd calibrate PEOPLE -o FILE" in str(finding.remedy)

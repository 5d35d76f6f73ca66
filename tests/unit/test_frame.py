"""What evaluations share: running enrichers without a database, picking, the report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image as Canvas

from daemon.config import Config
from daemon.evaluate import frame
from daemon.evaluate.frame import Options
from enrichers.contract import Enricher, Failure, Form, Loader, Result
from enrichers.image import Image


class Sizes(Enricher):
    name = "sizes"
    version = 1
    batches: ClassVar[list[int]] = []

    @property
    def form(self) -> Form:
        return Form(50)

    @property
    def max_batch(self) -> int:
        return 2

    def load(self, loader: Loader) -> None: ...

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        self.batches.append(len(images))
        if any(image.width == 13 for image in images):
            raise ValueError("thirteen")
        return [Result({"width": image.width, "shape": image.pixels.shape[:2]}) for image in images]


class Doubles(Sizes):
    name = "doubles"
    requires = ("sizes",)

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        return [Result({"double": 2 * image.results["sizes"]["width"]}) for image in images]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for width in (200, 13, 40):
        Canvas.new("RGB", (width, 20)).save(tmp_path / f"{width}.png")
    (tmp_path / "words.jpg").write_text("no picture")
    made: list[Enricher] = [Sizes({}), Doubles({})]
    monkeypatch.setattr(frame, "load_enrichers", lambda names, config: made)
    return tmp_path


@pytest.mark.parametrize("chunk", [1, 2, 32])
def test_runs_enrichers_and_what_they_require(folder: Path, chunk: int) -> None:
    paths = [folder / name for name in ("200.png", "13.png", "words.jpg", "missing.png", "40.png")]
    evaluated = list(frame.run_enrichers(["doubles"], paths, Config(), chunk=chunk))
    assert [item.path for item in evaluated] == paths
    assert [item.answer("doubles") for item in evaluated] == [{"double": 400}, None, None, None, {"double": 80}]
    kinds = [outcome.type for item in evaluated if isinstance(outcome := item.outcomes["sizes"], Failure)]
    assert kinds == ["ValueError", "UnsupportedFormat", "FileNotFoundError"]  # each alone, the others go on
    assert isinstance(evaluated[1].outcomes["doubles"], Failure)  # what it requires failed
    assert evaluated[0].answer("sizes") == {"width": 200, "shape": (5, 50)}  # decoded at the form's size
    assert evaluated[2].image is None


@pytest.mark.parametrize("limit", [None, 3, 10, 11])
def test_pick_keeps_the_order_and_depends_on_the_seed_alone(limit: int | None) -> None:
    picked = Options(limit=limit, seed=1).pick(range(10))
    assert picked == sorted(picked)
    assert len(picked) == min(limit or 10, 10)
    assert picked == Options(limit=limit, seed=1).pick(range(10))


def test_another_seed_picks_others() -> None:
    assert Options(limit=5, seed=1).pick(range(100)) != Options(limit=5, seed=2).pick(range(100))


def test_options_become_settings() -> None:
    config = Options(device="cpu", model="other").config("text", {"language": "de"})
    assert config.pipeline.device == "cpu"
    assert config.enrichers.settings("text") == {"model": "other", "language": "de"}
    assert config.enrichers.settings("faces") == {}


def test_images_below(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("b.JPG", "a/c.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in frame.images_below(tmp_path)] == ["c.png", "b.JPG"]
    with pytest.raises(frame.LabelsInvalid):
        frame.images_below(tmp_path / "nothing")


FIGURES: Mapping[str, Any] = {"ap": 0.51234, "images": 7, "by_kind": {"crop": 0.5}, "rows": {"a": {"right": 1}}}


def test_report_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    frame.report("Objects", FIGURES, Options(as_json=True))
    assert json.loads(capsys.readouterr().out) == FIGURES


def test_report_as_table(capsys: pytest.CaptureFixture[str]) -> None:
    frame.report("Objects", FIGURES, Options())
    printed = capsys.readouterr().out
    assert "0.5123" in printed
    assert "by_kind" in printed
    assert "right" in printed


def test_save_error(folder: Path, tmp_path: Path) -> None:
    [item] = frame.run_enrichers(["sizes"], [folder / "200.png"], Config())
    frame.save_error(tmp_path / "errors", item.path, item.image, ["wanted dog", "got cat"], [((1, 1, 5, 5), "cat")])
    frame.save_error(tmp_path / "errors", Path("a/gone.png"), None, ["it is gone"])
    assert Canvas.open(tmp_path / "errors" / f"{folder.name}-200.jpg").height > 40
    assert (tmp_path / "errors" / "a-gone.txt").read_text() == "it is gone\n"

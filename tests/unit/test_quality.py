"""The page of all measured figures."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from daemon.cli.evaluate import TASKS, app
from daemon.evaluate import quality
from daemon.evaluate.quality import Measured, MeasurementFailed, Row, read_rows


def test_rows_are_commands_that_exist_or_will() -> None:
    for row in read_rows():
        assert row.command[0] in TASKS
        assert row.figures
        assert set(row.published) <= set(row.figures)
    assert len({row.task for row in read_rows()}) == len(read_rows())


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data" / "files"
    folder.mkdir(parents=True)
    Pillow.new("RGB", (4, 4)).save(folder / "a.png")
    (folder / "b.pdf").write_bytes(b"%PDF-1")
    rows = [
        Row("Files", ("files", "{data}/files"), {"read": "read", "gone": "no such figure"}, {"read": "all"}),
        Row("Broken", ("properties", "{data}/nowhere"), {"right": "right"}),
    ]
    monkeypatch.setattr(quality, "read_rows", lambda: rows)
    return tmp_path / "data"


def run(data: Path, output: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["all", str(data), "--output", str(output), "--json", *arguments])


def test_measures_what_it_can_and_says_what_failed(data: Path, tmp_path: Path) -> None:
    done = run(data, tmp_path / "q.md")
    assert isinstance(done.exception, MeasurementFailed)
    written = (tmp_path / "q.md").read_text()
    assert "| Files | read | 1 | all | `enrichd evaluate files DATA/files` |" in written
    assert "| Files | no such figure | – |" in written
    assert "| Broken | – | failed: " in written


def test_only_some_keeps_the_others(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "q.md")
    (data / "files" / "c.pdf").write_bytes(b"%PDF-1")
    Pillow.new("RGB", (4, 4)).save(data / "files" / "d.png")
    done = run(data, tmp_path / "q.md", "--only", "files", "--limit", "9")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["Files"]["files"] == 4
    written = (tmp_path / "q.md").read_text()
    assert "| Files | read | 2 |" in written
    assert "| Broken | – | failed: " in written


def test_a_command_that_prints_before_its_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(quality, "COMMAND", ("sh", "-c", "echo hello; echo '{\"a\": 1}'"))
    [measured] = quality._run([Row("x", ("files",), {"a": "a"})], {}, [], ["files"])
    assert isinstance(measured, Measured)
    assert measured.figures == {"a": 1}


def test_labels_that_the_data_implies_are_made_and_nested_figures_shown(
    data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    (data / "exif_orientation").mkdir()
    Pillow.new("RGB", (8, 6)).save(data / "exif_orientation" / "Landscape_1.jpg")
    command = ("properties", "{data}/exif_orientation", "--labels", "{labels}/orientation.tsv")
    monkeypatch.setattr(quality, "read_rows", lambda: [Row("Turn", command, {"fields.width.right": "widths"})])
    assert run(data, tmp_path / "q.md").exit_code == 0
    shown = "`enrichd evaluate properties DATA/exif_orientation --labels LABELS/orientation.tsv`"
    assert f"| Turn | widths | 1 |  | {shown} |" in (tmp_path / "q.md").read_text()

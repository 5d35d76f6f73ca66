"""`enrichd models`: what it lists, pulls, verifies and says of licences."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from daemon.cli.models import app, size_text
from enrichers.errors import ModelMissing, ModelUnknown

GRAPH = b"a graph"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a model of the user's own, and no enricher that needs one."""
    (tmp_path / "mine.onnx").write_bytes(GRAPH)
    path = tmp_path / "enrichd.toml"
    path.write_text(
        f"""
        [models]
        cache = "{tmp_path / "cache"}"
        [models.entries.mine]
        task = "objects"
        runtime = "onnx"
        provider = "file"
        path = "{tmp_path / "mine.onnx"}"
        sha256 = "{hashlib.sha256(GRAPH).hexdigest()}"
        licence = "AGPL-3.0"
        restricted = true
        [enrichers]
        enabled = ["properties"]
        """
    )
    return path


def models(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--config", str(config)])


def rows(result: Result) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(result.stdout)}


def test_list_knows_the_built_in_models_and_the_users(config: Path) -> None:
    found = rows(models(config, "list", "--json"))
    assert found["mine"]["cached"] is True
    assert found["mine"]["task"] == "objects"
    assert found["centerface"]["cached"] is False
    assert found["centerface"]["needed"] is False  # no enabled enricher asks for it
    assert "mine" in models(config, "list", "--all").stdout
    assert "mine" not in models(config, "list").stdout  # what no enabled enricher needs


def test_sizes_are_readable() -> None:
    assert [size_text(size) for size in (None, 900, 99_900, 26_300_000)] == ["", "0.9 kB", "99.9 kB", "26.3 MB"]


def test_list_can_be_of_one_task(config: Path) -> None:
    assert {row["task"] for row in rows(models(config, "list", "--json", "--task", "faces")).values()} == {"faces"}


def test_what_enabled_enrichers_need_is_told(config: Path) -> None:
    config.write_text(config.read_text().replace('["properties"]', '["objects"]'))
    needed = [name for name, row in rows(models(config, "list", "--json")).items() if row["needed"]]
    assert needed == ["ssd_mobilenet_v2_coco"]


def test_an_unpinned_model_can_be_needed_before_it_is_pulled(config: Path) -> None:
    text = config.read_text().replace('["properties"]', '["objects"]\nobjects.model = "other"')
    config.write_text(
        text + '[models.entries.other]\ntask = "objects"\nprovider = "url"\nurl = "https://example.org/x"\n'
    )
    assert rows(models(config, "list", "--json"))["other"]["needed"] is True


@pytest.mark.parametrize(("damage", "state", "code"), [(None, "ok", 0), (b"x", "corrupt", 1), (b"", "missing", 1)])
def test_verify_tells_what_is_wrong(config: Path, damage: bytes | None, state: str, code: int) -> None:
    path = config.parent / "mine.onnx"
    if damage:
        path.write_bytes(damage)
    elif damage == b"":
        path.unlink()
    result = models(config, "verify", "mine", "--json")
    assert result.exit_code == code
    assert rows(result)["mine"]["state"] == state


def test_pull_of_what_is_there_fetches_nothing(config: Path) -> None:
    result = models(config, "pull", "mine", "--json")
    assert json.loads(result.stdout)["pulled"] == []
    assert result.stderr == ""  # a bar that no terminal shows leaves no empty line either


@pytest.mark.parametrize(("name", "error"), [("nothing", ModelUnknown), ("centerface", ModelMissing)])
def test_pull_says_what_it_cannot_do(config: Path, name: str, error: type[Exception]) -> None:
    result = models(config, "pull", name, "--set", "models.offline=true")  # which may not fetch centerface
    assert isinstance(result.exception, error)


def test_licences_tell_what_is_not_free(config: Path) -> None:
    found = rows(models(config, "licences", "--json"))
    assert found["mine"]["restricted"] is True
    assert found["mine"]["licence"] == "AGPL-3.0"
    assert found["centerface"]["restricted"] is False

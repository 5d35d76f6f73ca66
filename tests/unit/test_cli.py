"""The command line as a whole: it answers at once, is documented, and tells errors in one line."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from daemon.cli import GROUPS, app

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "commands.md"

#: modules too heavy to be imported before a command needs them
HEAVY = {"numpy", "pymongo", "pydantic", "rich", "tensorflow", "onnxruntime", "cv2", "faiss", "sklearn", "PIL"}


def enrichd(*arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the console command in `folder`."""
    command = [str(Path(sys.executable).parent / "enrichd"), *arguments]
    variables = {"PATH": "/usr/bin:/bin", "COLUMNS": "200", **environment}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=60, check=False)


def test_help_answers_at_once() -> None:
    enrichd("--help")  # the first run compiles
    before = os.times()
    result = enrichd("--help")
    after = os.times()
    assert result.returncode == 0
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert seconds < 1  # of a processor, not of the clock: tests rarely have a machine to themselves


def test_nothing_heavy_is_imported_for_help() -> None:
    code = "import sys, daemon.cli; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert HEAVY.isdisjoint(modules)


def test_an_error_is_one_message_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "enrichd.toml").write_text("[mongo]\nurl = 1\n")
    result = enrichd("config", folder=tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == ["enrichd: enrichd.toml: mongo.url is no setting; did you mean mongo.uri?"]


@pytest.mark.parametrize(
    ("arguments", "database"),
    [
        ([], "enrichd"),
        (["--database", "shop"], "shop"),
        (["--set", "mongo.database=shop"], "shop"),
        (["--config", "other.toml"], "other"),
        (["--config", "other.toml", "--database", "shop"], "shop"),  # a flag wins over the file
    ],
)
def test_flags_reach_the_configuration(tmp_path: Path, arguments: list[str], database: str) -> None:
    (tmp_path / "other.toml").write_text('[mongo]\ndatabase = "other"\n')
    result = enrichd("config", "--json", *arguments, folder=tmp_path)
    assert json.loads(result.stdout)["mongo"]["database"] == database


@pytest.mark.parametrize("assignment", ["mongo.database", "mongo.databse=x"])
def test_a_wrong_assignment_is_told(tmp_path: Path, assignment: str) -> None:
    result = enrichd("config", "--set", assignment, folder=tmp_path)
    assert result.returncode == 1
    assert "mongo.databa" in result.stderr


def test_config_refuses_an_enrichers_setting_as_run_does(tmp_path: Path) -> None:
    (tmp_path / "enrichd.toml").write_text("[enrichers.objects]\nmin_scor = 0.5\n")
    result = enrichd("config", folder=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "unknown setting enrichers.objects.min_scor" in result.stderr
    assert "min_score" in result.stderr


def test_the_documented_configuration_is_accepted(tmp_path: Path) -> None:
    page = (DOCUMENTATION.parent / "configuration.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "enrichd.toml").write_text(example)
    result = enrichd("config", "--json", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["enrichers"]["objects"] == {"min_score": 0.5}


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "failures",
        "verify",
        "reprocess",
        "recluster --dry-run",
        "migrate up",
        "add --root . .",
        "search picture.png",
        "faces export out --from-db",
        "identities list",
        "identities name nobody Ada",
    ],
)
def test_without_a_database_a_command_says_so_and_makes_nothing(tmp_path: Path, command: str) -> None:
    (tmp_path / "picture.png").write_bytes(b"")
    result = enrichd(*command.split(), folder=tmp_path, HOME=str(tmp_path))
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("enrichd: There is no database in ") and "`enrichd run`" in line
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("command", ["config", "doctor", "models list", "models licences", "models verify"])
def test_a_command_that_looks_makes_nothing(tmp_path: Path, command: str) -> None:
    assert enrichd(*command.split(), folder=tmp_path, HOME=str(tmp_path)).stdout
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_command_suggests_the_right_one() -> None:
    result = enrichd("versoin")
    assert result.returncode == 2
    assert "'version'" in result.stderr


def _commands(command: Any, above: str = "enrichd") -> Iterator[str]:
    for name, part in command.commands.items():
        if above == "enrichd" and name in GROUPS:
            part = typer.main.get_command(import_module(f"daemon.cli.{name}").app)
        if hasattr(part, "commands"):
            yield from _commands(part, f"{above} {name}")
        else:
            assert part.help, f"{above} {name} has no help"
            yield f"{above} {name}"


def test_every_command_is_documented() -> None:
    documented = re.findall(r"^\| `(enrichd [a-z -]+)` \|", DOCUMENTATION.read_text(), re.MULTILINE)
    assert set(documented) == set(_commands(typer.main.get_command(app)))

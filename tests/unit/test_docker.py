"""The container image and the compose file: linted, and agreeing with the configuration that they rely on."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.config import load, settings
from daemon.doctor import SHARED_MEMORY_MARGIN_MB

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "docker" / "Dockerfile"
COMPOSE = REPOSITORY / "docker" / "compose.yaml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return services


def _instructions() -> list[tuple[str, str]]:
    lines = re.sub(r"\\\n", " ", DOCKERFILE.read_text()).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line and line[0].isupper()]


def test_the_linter_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint has no package for this platform")
    result = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_image_runs_as_a_user_with_a_health_check() -> None:
    last_stage = _instructions()[[i for i, (name, _) in enumerate(_instructions()) if name == "FROM"][-1] :]
    names = [name for name, _ in last_stage]
    assert [value for name, value in last_stage if name == "USER"] == ["10001"]
    assert "HEALTHCHECK" in names
    assert names.index("USER") < names.index("ENTRYPOINT")


def test_the_image_never_fetches_weights() -> None:
    environment = " ".join(value for name, value in _instructions() if name == "ENV")
    variables = dict(re.findall(r"(ENRICHD_\w+)=(\S+)", environment))
    assert load(environment=variables).models.offline
    assert str(load(environment=variables).models.cache) == "/opt/models"


def test_what_is_copied_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"}
    copies = [value.split() for name, value in _instructions() if name == "COPY" and not value.startswith("--from")]
    sources = {source for *sources, _ in copies for source in sources}
    assert sources == kept
    assert all((REPOSITORY / source).exists() for source in sources)


def test_what_the_package_needs_is_copied() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    needed = {*project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"], project["project"]["readme"]}
    copied = {part for name, value in _instructions() if name == "COPY" for part in value.split()}
    assert needed <= copied


def test_the_replica_set_initiates_itself_under_the_name_that_the_uri_has(services: dict[str, Any]) -> None:
    mongo, enrichd = services["mongo"], services["enrichd"]
    (name,) = re.findall(r"replicaSet=(\w+)", enrichd["environment"]["ENRICHD_MONGO__URI"])
    assert mongo["command"][mongo["command"].index("--replSet") + 1] == name
    check = mongo["healthcheck"]["test"][-1]
    assert f'_id: "{name}"' in check
    assert "isWritablePrimary" in check
    assert enrichd["depends_on"]["mongo"]["condition"] == "service_healthy"


def test_shared_memory_holds_the_pixels_in_flight(services: dict[str, Any]) -> None:
    (gigabytes,) = re.findall(r"^(\d+)gb$", services["enrichd"]["shm_size"])
    default = next(setting.default for setting in settings() if setting.name == "pipeline.in_flight_mb")
    assert int(gigabytes) * 1024 >= default + SHARED_MEMORY_MARGIN_MB


def test_the_variables_of_the_compose_file_are_settings(services: dict[str, Any]) -> None:
    config = load(environment=services["enrichd"]["environment"])
    mounted = {volume.rsplit(":", 2)[1] for volume in services["enrichd"]["volumes"]}
    assert {str(root) for root in config.images.roots} <= mounted


def test_the_compose_file_is_one() -> None:
    docker = shutil.which("docker")
    command = [str(docker), "compose", "-f", str(COMPOSE), "config", "--quiet"]
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr

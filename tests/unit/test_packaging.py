"""Installs are repeatable: every package is pinned, by name and version alone."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
PINS = [Requirement(line) for line in (REPOSITORY / "constraints.txt").read_text().splitlines()]
REQUIREMENTS = [
    Requirement(text)
    for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in texts
    if not text.startswith("enrichd[")
]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_requirement_is_pinned_to_a_version_that_it_allows(requirement: Requirement) -> None:
    pins = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
    assert pins, "run `make constraints`"
    for pin in pins:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert requirement.specifier.contains(specifier.version, prereleases=True)


def test_pins_name_no_address() -> None:
    assert not [pin for pin in PINS if pin.url]
    assert "--" not in (REPOSITORY / "constraints.txt").read_text()


def test_mongosh_is_pinned_without_addresses() -> None:
    lock = (REPOSITORY / "tests" / "mongosh" / "package-lock.json").read_text()
    package = json.loads((REPOSITORY / "tests" / "mongosh" / "package.json").read_text())
    assert json.loads(lock)["packages"]["node_modules/mongosh"]["version"] == package["dependencies"]["mongosh"]
    assert "resolved" not in lock
    assert not re.search(r'"https?://[^"]*\.tgz"', lock)

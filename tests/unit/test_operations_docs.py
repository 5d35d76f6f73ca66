"""Each promise has its tests, and each metric, check and promise its line in docs/operations.md."""

import re
from pathlib import Path
from typing import Any

import pytest

from daemon.app import add_readings
from daemon.health import examine
from daemon.metrics import Metrics
from tests.unit.test_health import WELL

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PROMISES = dict(re.findall(r"^\| (\d+) \| .+ \| `(tests/faults/\S+\.py)` \|$", DOCS, re.MULTILINE))


def test_all_promises_are_listed() -> None:
    assert [int(number) for number in PROMISES] == list(range(1, 16))


@pytest.mark.parametrize("number", range(1, 16))
def test_each_promise_has_a_test_named_after_it(number: int) -> None:
    source = (ROOT / PROMISES[str(number)]).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def test_promise_{number:02}_\w+\(", source, re.MULTILINE)


def test_each_metric_has_its_line() -> None:
    metrics = Metrics()
    part: Any = None
    add_readings(metrics, part, part, part, part, part, part)
    documented = set(re.findall(r"^\| `(enrichd_\w+)", DOCS, re.MULTILINE))
    assert documented == set(metrics.names())


@pytest.mark.parametrize("check", [check.name for check in examine(WELL)])
def test_each_check_is_explained(check: str) -> None:
    assert f"`{check}`" in DOCS

"""Other methods beside enrichd's own clustering: they run apart, and can be stopped."""

import numpy as np
import pytest

from benchmarks.faces_generator import make
from benchmarks.recluster import measured, peer
from daemon.peers import PEERS, best


def test_a_method_is_tried_with_all_its_settings() -> None:
    figures = peer("average linkage", 300, 0, 120.0)
    assert "stopped" not in figures
    made = make(300, 0)
    winner = best("average linkage", PEERS["average linkage"](made.vectors), made.people)
    assert figures["bcubed_f"] == round(winner.agreement.bcubed_f, 4)


def test_a_method_that_takes_too_long_is_stopped_and_told() -> None:
    figures = peer("HDBSCAN", 1500, 0, 0.01)
    assert figures["stopped"] == "stopped after 0.01 s"
    assert figures["settings"] < 18


@pytest.mark.parametrize("method", ["DBSCAN", "HDBSCAN"])
def test_made_up_people_can_be_told_apart(method: str) -> None:
    made = make(0, 0, np.full(20, 8))
    assert best(method, PEERS[method](made.vectors), made.people).agreement.bcubed_f > 0.9


def test_what_is_measured_is_there() -> None:
    figures = measured(500, 0)
    assert figures["bcubed_f"] > 0.9
    assert figures["peak_mb"] >= figures["peak_mb_before"] > 0

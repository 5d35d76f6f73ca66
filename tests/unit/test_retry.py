"""When a failure is tried again."""

from datetime import UTC, datetime, timedelta

import pytest

from daemon.retry import RetryPolicy
from enrichers.contract import Failure

NOW = datetime(2026, 1, 2, tzinfo=UTC)
POLICY = RetryPolicy(attempts=4, first_s=30, max_s=100)


def test_permanent_failures_are_never_tried_again() -> None:
    assert POLICY.decide(Failure("NotAnImage", "", transient=False), 1, NOW).at is None


@pytest.mark.parametrize(("attempts", "longest"), [(1, 30), (2, 60), (3, 100)])  # the third doubling meets the limit
def test_transient_failures_back_off(attempts: int, longest: float) -> None:
    at = POLICY.decide(Failure("Timeout", "", transient=True), attempts, NOW).at
    assert at is not None
    assert timedelta(seconds=longest * 0.8) <= at - NOW <= timedelta(seconds=longest)


def test_the_last_attempt_is_the_last() -> None:
    assert POLICY.decide(Failure("Timeout", "", transient=True), 4, NOW).at is None

"""When a failed attempt is made again."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from enrichers.contract import Failure


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """`at`: when to try again; None: never by itself."""

    at: datetime | None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter, for transient faults only."""

    attempts: int  #: attempts in all
    first_s: float  #: seconds before the second attempt
    max_s: float  #: longest wait in seconds

    def decide(self, failure: Failure, attempts: int, now: datetime) -> RetryDecision:
        """`attempts` made so far, the failed one included. A permanent failure is never tried again."""
        if not failure.transient or attempts >= self.attempts:
            return RetryDecision(None)
        delay = backoff(attempts, self.first_s, self.max_s)
        return RetryDecision(now + timedelta(seconds=delay))


def backoff(attempts: int, first_s: float, max_s: float) -> float:
    """Seconds to wait after `attempts` failures: doubled each time up to `max_s`, less up to a fifth at random, so that
    many that failed together do not come back together."""
    return float(min(max_s, first_s * 2 ** min(attempts - 1, 32)) * random.uniform(0.8, 1.0))

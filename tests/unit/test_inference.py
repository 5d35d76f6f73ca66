"""Batches that do not fit into memory, and enrichers that misbehave."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from daemon.inference import Sizes, enrich
from enrichers.contract import Enricher, Failure, Loader, Result
from enrichers.errors import OutOfMemory
from enrichers.image import Image


class Greedy(Enricher):
    """Runs out of memory above a number of images."""

    name = "greedy"
    version = 1

    def __init__(self, fits: int) -> None:
        super().__init__({})
        self.fits = fits
        self.tried: list[int] = []

    def load(self, loader: Loader) -> None: ...

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        self.tried.append(len(images))
        if len(images) > self.fits:
            raise OutOfMemory
        return [Result({"key": image.key}) for image in images]


def pictures(count: int) -> list[Image]:
    facts: Any = None
    return [Image(n, np.zeros((2, 2, 3), np.uint8), 2, 2, facts, {}) for n in range(count)]


def test_the_batch_is_halved_and_the_working_size_remembered() -> None:
    greedy, sizes = Greedy(fits=4), Sizes()
    outcomes = enrich(greedy, pictures(16), sizes)
    assert [o.answer["key"] for o in outcomes if isinstance(o, Result)] == list(range(16)), "in order, none missing"
    assert greedy.tried[:3] == [16, 8, 4]
    greedy.tried.clear()
    assert len(enrich(greedy, pictures(16), sizes)) == 16
    assert greedy.tried == [4, 4, 4, 4], "what did not fit is not tried again"


def test_one_image_that_does_not_fit_fails_for_the_time_being() -> None:
    [outcome] = enrich(Greedy(fits=0), pictures(1), Sizes())
    assert isinstance(outcome, Failure) and outcome.type == "OutOfMemory" and outcome.transient

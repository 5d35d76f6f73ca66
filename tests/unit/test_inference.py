"""Batches that do not fit into memory, and enrichers that misbehave."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import pytest

from daemon.inference import Memories, Sizes, enrich
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


@pytest.fixture
def made() -> Iterator[SharedMemory]:
    """A memory as a decode worker fills it."""
    memory = SharedMemory(create=True, size=4096)
    yield memory
    memory.close()
    memory.unlink()


def test_lanes_that_begin_at_once_share_one_mapping(made: SharedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(name: str) -> SharedMemory:
        time.sleep(0.05)
        return SharedMemory(name)

    monkeypatch.setattr("daemon.inference.SharedMemory", slowly)
    memories = Memories()
    with ThreadPoolExecutor(4) as pool:
        attached = list(pool.map(lambda _: memories.attached(made.name), range(4)))
    assert len({id(memory) for memory in attached}) == 1, "a second one would be unmapped under its reader"


def test_the_memory_of_a_replaced_worker_stays_while_it_is_read(made: SharedMemory) -> None:
    memories = Memories()
    old = SharedMemory(create=True, size=4096)
    assert old.buf is not None and made.buf is not None
    old.buf[0] = 7
    held = memories.attached(old.name)
    pixels: np.ndarray[Any, Any] = np.ndarray((4096,), np.uint8, buffer=held.buf)
    old.close()
    old.unlink()
    assert memories.attached(made.name).size >= 4096  # looks for memories that are gone
    assert pixels[0] == 7

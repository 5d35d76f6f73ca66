"""When a batch leaves."""

import asyncio
from collections.abc import Sequence

from daemon.batch import Batcher
from daemon.decoding import PixelsRef
from daemon.inference import Answers, ImageRef
from enrichers.image import Facts

FACTS = Facts("PNG", 1, "", 1, 1)


def image(key: int) -> ImageRef:
    return ImageRef(key, PixelsRef("", 0, 1, 1), 1, 1, FACTS, ("x",))


class Recorder:
    """A runner that keeps what it was given until it is released."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.release = asyncio.Event()

    async def __call__(self, images: Sequence[ImageRef]) -> list[Answers]:
        self.batches.append([image.key for image in images])
        await self.release.wait()
        return [{} for _ in images]


async def test_a_lone_image_goes_at_once() -> None:
    runner = Recorder()
    batcher = Batcher(runner, 4, wait_s=60)
    batcher.expect()
    batcher.submit(image(1))
    await asyncio.sleep(0)
    assert runner.batches == [[1]]


async def test_it_waits_for_companions_that_are_on_their_way() -> None:
    runner = Recorder()
    batcher = Batcher(runner, 4, wait_s=60)
    for _ in range(3):
        batcher.expect()
    batcher.submit(image(1))
    batcher.submit(image(2))
    await asyncio.sleep(0)
    assert runner.batches == []
    batcher.forgo()  # the third could not be decoded
    await asyncio.sleep(0)
    assert runner.batches == [[1, 2]]


async def test_it_does_not_wait_longer_than_the_budget() -> None:
    runner = Recorder()
    batcher = Batcher(runner, 4, wait_s=0.01)
    batcher.expect()
    batcher.expect()
    batcher.submit(image(1))
    await asyncio.sleep(0.05)
    assert runner.batches == [[1]]


async def test_a_full_batch_goes_and_the_rest_gathers_meanwhile() -> None:
    runner = Recorder()
    batcher = Batcher(runner, 2, wait_s=60)
    for _ in range(6):
        batcher.expect()
    futures = [batcher.submit(image(n)) for n in range(5)]
    await asyncio.sleep(0)
    assert runner.batches == [[0, 1], [2, 3]]  # one runs, a full one stands behind it
    runner.release.set()
    await asyncio.gather(*futures[:4])
    batcher.forgo()
    await futures[4]
    assert runner.batches == [[0, 1], [2, 3], [4]]


async def test_a_runner_that_raises_fails_its_own_batch_only() -> None:
    async def run(images: Sequence[ImageRef]) -> list[Answers]:
        if images[0].key == 1:
            raise RuntimeError("broken")
        return [{} for _ in images]

    batcher = Batcher(run, 1, wait_s=0)
    batcher.expect()
    batcher.expect()
    first, second = batcher.submit(image(1)), batcher.submit(image(2))
    assert await second == {}
    try:
        await first
    except RuntimeError as error:
        assert str(error) == "broken"
    else:
        raise AssertionError("the error was lost")

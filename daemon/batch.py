"""Collects images into batches for one unit: waits for companions only while some may come."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from daemon.inference import Answers, ImageRef

#: full batches of a unit that may wait at the worker behind those that run
AHEAD = 1


class Batcher:
    """A queue of images for one unit. A batch leaves when it is full, when the unit is idle and nothing upstream could
    join it, or when its oldest image has waited `wait_s` seconds."""

    def __init__(
        self,
        run: Callable[[Sequence[ImageRef]], Awaitable[list[Answers]]],
        max_batch: int,
        wait_s: float,
        side_by_side: int = 1,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._wait_s = wait_s
        self._side_by_side = side_by_side  # batches that the worker runs at a time
        self._queue: deque[tuple[ImageRef, asyncio.Future[Answers], float]] = deque()
        self._out = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._upstream = 0
        self.batches = 0
        self.images = 0

    def expect(self) -> None:
        """An image was taken on that will come here, or say `forgo`."""
        self._upstream += 1

    def forgo(self) -> None:
        """An image that was expected does not come."""
        self._upstream -= 1
        self._flush()

    def submit(self, image: ImageRef) -> "asyncio.Future[Answers]":
        """An image that was expected: its answers, once its batch is done."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answers] = loop.create_future()
        self._upstream -= 1
        self._queue.append((image, future, loop.time()))
        self._flush()
        return future

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue and self._out < self._side_by_side + AHEAD:
            if len(self._queue) < self._max_batch:
                if self._out:
                    return
                left = self._queue[0][2] + self._wait_s - loop.time()
                if self._upstream > 0 and left > 0:
                    if self._timer is None:
                        self._timer = loop.call_later(left, self._timed_out)
                    return
            batch = [self._queue.popleft() for _ in range(min(self._max_batch, len(self._queue)))]
            self._out += 1
            self.batches += 1
            self.images += len(batch)
            task = loop.create_task(self._work(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _timed_out(self) -> None:
        self._timer = None
        self._flush()

    async def _work(self, batch: list[tuple[ImageRef, "asyncio.Future[Answers]", float]]) -> None:
        try:
            answers = await self._run([image for image, _, _ in batch])
            for (_, future, _), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        except Exception as error:
            for _, future, _ in batch:
                if not future.done():
                    future.set_exception(error)
        finally:
            self._out -= 1
            self._flush()

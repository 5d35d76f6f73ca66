"""A TCP proxy between daemon and server that delays, cuts or swallows what passes."""

import asyncio
import contextlib

from daemon.embedded import free_port


class Proxy:
    """Forwards connections to a port of the loopback interface; its faults hold for all of them."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.delay_s = 0.0  #: added to each piece of data, both ways
        self.refusing = False  #: new connections are closed at once
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def uri(self) -> str:
        # the embedded server does not tell the driver's monitor at once when its state changes, as MongoDB does:
        # without this, each such fault takes the ten seconds until the monitor asks again
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true&heartbeatFrequencyMS=500"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        self._server.close()
        self.restore()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Resets every connection that is open."""
        for writer in list(self._writers):
            writer.transport.abort()

    def black_hole(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._flowing.clear()

    def restore(self) -> None:
        self.delay_s = 0.0
        self.refusing = False
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, their_writer}
        for source, sink in ((reader, their_writer), (their_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await asyncio.sleep(self.delay_s)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()

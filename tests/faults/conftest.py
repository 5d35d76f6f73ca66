"""A real daemon process against a real server process through a proxy, and what must hold of the collection then."""

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pymongo import AsyncMongoClient

from daemon.config import Config, as_toml, effective
from daemon.embedded import EmbeddedServer
from daemon.identities import recluster
from daemon.store.collections import Collections, Document, open_collections
from tests.faults.proxy import Proxy

ROOT = Path(__file__).parents[2]
#: folders that stand before the installed enrichers on the path of a daemon under test
PLUGINS = (ROOT / "tests" / "plugin_faces", ROOT / "tests" / "plugin")
#: seconds that a loaded machine may take for what usually takes two
PATIENCE_S = 60.0


class DaemonProcess:
    """One daemon; `kill` ends it as a crash would, `stop` as an administrator does."""

    def __init__(self, name: str, folder: Path, config: Config) -> None:
        self.name = name
        self.config = config
        self.file = folder / f"{name}.toml"
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        values = effective(self.config)
        values["mongo"]["uri"] = self.config.mongo.uri
        self.file.write_text(as_toml(values))
        self._from = self.log.stat().st_size if self.log.exists() else 0
        path = os.pathsep.join([*map(str, PLUGINS), str(ROOT)])
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.process", str(self.file)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def ready(self) -> None:
        await self.says(r" ready: ")

    def text(self) -> str:
        """What it logged since it was started last."""
        with self.log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace")

    async def says(self, pattern: str, timeout_s: float = PATIENCE_S) -> re.Match[str]:
        """Waits until a line of the log matches."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (match := re.search(pattern, self.text())) is None:
            ended = not self.running
            if (ended and re.search(pattern, self.text()) is None) or asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"{self.name} never said {pattern!r}; the end of its log:\n{self.text()[-3000:]}")
            await asyncio.sleep(0.05)
        return match

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def stop(self, timeout_s: float = PATIENCE_S) -> int:
        """Ends it with SIGTERM; its exit code."""
        assert self._process is not None
        if self.running:
            self.signal(signal.SIGTERM)
        return await self.ended(timeout_s)

    async def ended(self, timeout_s: float = PATIENCE_S) -> int:
        process = self._process
        assert process is not None
        async with asyncio.timeout(timeout_s):
            while (code := process.poll()) is None:
                await asyncio.sleep(0.05)
        return code


class World:
    """A server, a proxy before it, the daemons, and the pictures."""

    def __init__(self, server: EmbeddedServer, proxy: Proxy, collections: Collections, folder: Path) -> None:
        self.server = server
        self.proxy = proxy
        self.collections = collections
        self.folder = folder
        self.photos = folder / "photos"
        self.photos.mkdir()
        self.calls_log = folder / "calls.log"
        self.daemons: list[DaemonProcess] = []

    @property
    def images(self) -> Any:
        return self.collections.images

    def config(self, **sections: Mapping[str, Any]) -> Config:
        """Light enrichers, small pools, short waits; `sections` are merged over that table by table."""
        tree: dict[str, dict[str, Any]] = {
            "mongo": {"uri": self.proxy.uri, "database": self.collections.database.name, "timeout_s": 5},
            "images": {"roots": [self.photos]},
            "enrichers": {
                "enabled": ["standin", "follower", "faces"],
                "standin": {"log": str(self.calls_log)},
                "faces": {"log": str(self.calls_log)},
            },
            "pipeline": {"device": "cpu", "decode_workers": 1, "threads": 1, "in_flight_mb": 64, "task_timeout_s": 10},
            "sweep": {"fast_interval_s": 2},
            "retry": {"first_s": 0.3, "max_s": 2, "attempts": 3},
            "models": {"offline": True},
        }
        for name, values in sections.items():
            tree[name] = {**tree.get(name, {}), **values}
        return Config.model_validate(tree)

    def daemon(self, name: str = "daemon", **sections: Mapping[str, Any]) -> DaemonProcess:
        """A daemon that has not started; it is ended with the test."""
        daemon = DaemonProcess(name, self.folder, self.config(**sections))
        self.daemons.append(daemon)
        return daemon

    async def started(self, name: str = "daemon", **sections: Mapping[str, Any]) -> DaemonProcess:
        daemon = self.daemon(name, **sections)
        daemon.start()
        await daemon.ready()
        return daemon

    def paint(self, name: str, colour: tuple[int, int, int] = (120, 60, 30), size: tuple[int, int] = (24, 32)) -> str:
        """Writes a plain PNG below the root; its path relative to that."""
        Image.new("RGB", size, colour).save(self.photos / name)
        return name

    async def insert(self, count: int, first: int = 0, chunk: int = 50) -> None:
        """Inserts documents with small pictures of different colours in themselves."""
        for start in range(first, first + count, chunk):
            await self.images.insert_many(
                [{"_id": n, "source": picture(n)} for n in range(start, min(start + chunk, first + count))]
            )

    async def settled(self, query: Mapping[str, Any], count: int, timeout_s: float = PATIENCE_S) -> None:
        """Waits until `count` documents match."""
        found = -1
        try:
            async with asyncio.timeout(timeout_s):
                while (found := await self.images.count_documents(query)) != count:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            logs = "\n".join(f"--- {daemon.name}\n{daemon.text()[-3000:]}" for daemon in self.daemons)
            raise AssertionError(f"{found} documents match {query}, not {count}\n{logs}") from None

    async def complete(self, count: int, timeout_s: float = PATIENCE_S) -> None:
        await self.settled({"enrichment.state": "complete"}, count, timeout_s)

    def calls(self, enricher: str = "standin") -> Counter[str]:
        """How often an enricher worked on an image, by the SHA-256 of its bytes."""
        if not self.calls_log.exists():
            return Counter()
        lines = (line.split() for line in self.calls_log.read_text().splitlines())
        return Counter(words[1] for words in lines if len(words) == 4 and words[0] == enricher)

    async def violations(self) -> list[str]:
        """What `enrichd verify` finds once the counts of identities, which follow at each recluster, are up to date."""
        from daemon.verification import verify

        await recluster(self.collections, self.config().identities)
        return [str(violation) for violation in (await verify(self.config(), self.collections)).violations]

    async def fail(self, *commands: str, times: int = 1, **data: Any) -> None:
        """Makes the server fail the next `times` calls of these commands."""
        await self.collections.database.client.admin.command(
            {
                "configureFailPoint": "failCommand",
                "mode": {"times": times},
                "data": {"failCommands": list(commands), "appName": "enrichd", **data},
            }
        )


def picture(number: int, size: tuple[int, int] = (24, 32)) -> bytes:
    """A small PNG whose pixels no other number has, and whose first one is black, so that no stand-in acts up."""
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    pixels[0, 0] = 0
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", compress_level=1)
    return data.getvalue()


@asynccontextmanager
async def make_world(folder: Path, database: str, options: Iterable[str] = ()) -> AsyncIterator[World]:
    """A server of its own, which a test may kill."""
    server = EmbeddedServer(folder / "server" / "data", options=tuple(options))
    server.start()
    proxy = Proxy(server.port)
    await proxy.start()
    client: AsyncMongoClient[Document] = AsyncMongoClient(server.uri, appname="test")
    world = World(server, proxy, open_collections(client, database, "images"), folder)
    try:
        yield world
    finally:
        for daemon in world.daemons:
            daemon.kill()
        await client.close()
        await proxy.stop()
        server.stop()


@pytest.fixture
async def world(tmp_path: Path, database: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """`@pytest.mark.server("--flag", …)` starts the server with further flags."""
    marker = request.node.get_closest_marker("server")
    options = ("--enable-test-commands", *(marker.args if marker else ()))
    async with make_world(tmp_path, database, options) as world:
        yield world

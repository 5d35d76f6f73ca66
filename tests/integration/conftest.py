"""A daemon within the test's own process (its workers are processes all the same), with light enrichers."""

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from daemon import app
from daemon.activation import require_active
from daemon.config import Config
from daemon.pipeline import Pipeline
from daemon.store.collections import Collections, Document
from daemon.store.state import State
from migrations.steps import migrate

PLUGIN = Path(__file__).parents[1] / "plugin"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installs the stand-in enrichers; workers inherit the path."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    yield


class Harness:
    """Starts daemons on one database and tells what they did."""

    def __init__(self, collections: Collections, folder: Path) -> None:
        self.collections = collections
        self.photos = folder / "photos"
        self.photos.mkdir()
        self.log = folder / "calls.log"

    def config(self, **sections: dict[str, Any]) -> Config:
        """Two stand-ins, small pools; `sections` are merged over that, `enrichers` table by table."""
        tree: dict[str, dict[str, Any]] = {
            "images": {"roots": [self.photos]},
            "enrichers": {"enabled": ["standin", "follower"], "standin": {"log": str(self.log)}},
            "pipeline": {"device": "cpu", "decode_workers": 1, "threads": 1, "in_flight_mb": 64, "task_timeout_s": 5},
            "sweep": {"fast_interval_s": 0.5},
            "retry": {"first_s": 0.2, "max_s": 0.5, "attempts": 3},
        }
        for name, values in sections.items():
            tree[name] = {**tree.get(name, {}), **values}
        return Config.model_validate(tree)

    @asynccontextmanager
    async def daemon(self, **sections: dict[str, Any]) -> AsyncIterator[Pipeline]:
        """A running daemon, which stops in order when the block is left."""
        setup = app.Setup.of(self.config(**sections))
        await migrate(self.collections)
        images = app.open_images(setup.config, self.collections)
        state = State(self.collections)
        stored = await require_active(state, images, setup.plan)
        async with app.serve(setup, self.collections, images, state, stored) as service:
            yield service.pipeline

    def paint(self, name: str, colour: tuple[int, int, int] = (120, 60, 30), size: tuple[int, int] = (32, 24)) -> str:
        """Writes a plain PNG below the root; its path relative to that."""
        Image.new("RGB", size, colour).save(self.photos / name)
        return name

    def calls(self) -> Counter[str]:
        """How often each enricher worked on an image, by `name sha256`."""
        if not self.log.exists():
            return Counter()
        return Counter(" ".join(line.split()[:2]) for line in self.log.read_text().splitlines())

    async def settled(self, check: Callable[[Document], bool], _id: Any, timeout_s: float = 20) -> Document:
        """The document, once `check` holds for it."""
        document: Document | None = None
        async with asyncio.timeout(timeout_s):
            try:
                while True:
                    document = await self.collections.images.find_one({"_id": _id})
                    if document is not None and check(document):
                        return document
                    await asyncio.sleep(0.03)
            except asyncio.CancelledError:
                print("last seen:", document)
                raise

    async def state(self, _id: Any, *states: str) -> Document:
        """The document, once its state is one of `states`."""
        return await self.settled(lambda d: (d.get("enrichment") or {}).get("state") in (states or ("complete",)), _id)


@pytest.fixture
def harness(collections: Collections, tmp_path: Path, plugin: None) -> Harness:
    return Harness(collections, tmp_path)


def png(colour: tuple[int, int, int] = (120, 60, 30), size: tuple[int, int] = (32, 24)) -> bytes:
    """A plain PNG file's bytes."""
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()

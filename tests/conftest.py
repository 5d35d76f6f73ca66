"""Fixtures that several kinds of tests share."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pymongo import AsyncMongoClient

from daemon.embedded import EmbeddedServer
from daemon.store.collections import Collections, Document, open_collections
from enrichers.catalogue import Catalogue
from enrichers.weights import ModelStore, default_cache


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One embedded server for all tests of a run; each test takes a database of its own."""
    server = EmbeddedServer(tmp_path_factory.mktemp("server") / "data")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database() -> str:
    """The name of a database that no other test uses."""
    return f"test_{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def collections(server: EmbeddedServer, database: str) -> AsyncIterator[Collections]:
    """Open collections of an empty database."""
    client: AsyncMongoClient[Document] = AsyncMongoClient(server.uri)
    yield open_collections(client, database, "images")
    await client.drop_database(database)
    await client.close()


@pytest.fixture(scope="session")
def model_store() -> ModelStore:
    """The model store that `enrichd models pull` fills: $ENRICHD_MODELS_CACHE, else the user's."""
    cache = Path(os.environ.get("ENRICHD_MODELS_CACHE") or default_cache())
    return ModelStore(cache, Catalogue.load(cache=cache))


@pytest.fixture(scope="session")
def dlib_weights(model_store: ModelStore) -> Path:
    """dlib's own weights file."""
    pulled(model_store, "dlib")
    return model_store.path("dlib")


def pulled(store: ModelStore, *names: str) -> None:
    """Skips the test where one of the models has not been pulled."""
    if missing := store.missing(names):
        pytest.skip(f"the weights of {', '.join(missing)} have not been pulled")


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"{variable} is not set to a folder")
    return Path(value).resolve()


@pytest.fixture(scope="session")
def eval_data() -> Path:
    """The evaluation data's folder."""
    return _folder("ENRICHD_EVAL_DATA")


@pytest.fixture(scope="session")
def eval_models() -> Path:
    """A folder of optional models."""
    return _folder("ENRICHD_EVAL_MODELS")


#: kinds of tests whose real processes and clocks may be held up by whatever else the machine does
TIMED = ("faults", "acceptance", "integration")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that drives real processes against the clock is tried again twice before it counts as failed; pytest's
    summary names every test that needed it."""
    for item in items:
        if item.path.parent.name in TIMED:
            item.add_marker(pytest.mark.flaky(reruns=2))

"""What enrichd says of servers that it cannot use, and how commands find the embedded one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pymongo import MongoClient

from daemon.config import Config, ConfigInvalid, load
from daemon.connection import (
    CredentialsRefused,
    NoDatabase,
    NoReplicaSet,
    PrivilegeMissing,
    ServerTooOld,
    ServerUnreachable,
    connect,
    greet,
    open_client,
    server_uri,
)
from daemon.embedded import EmbeddedFailed, EmbeddedServer, exists, free_port, running
from daemon.store.probe import try_privileges

pytestmark = pytest.mark.integration


def _config(uri: str | None, **flags: object) -> Config:
    return load(flags={"mongo.uri": uri, "mongo.timeout_s": 2, **flags}, environment={})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server that asks for credentials; `ada` with the password `pw` may write."""
    data = tmp_path_factory.mktemp("guarded") / "data"
    server = EmbeddedServer(data)
    server.start()
    with MongoClient(server.uri) as client:
        client.admin.command("createUser", "ada", pwd="pw", roles=[{"role": "readWrite", "db": "enrichd"}])
        client.admin.command("createUser", "bob", pwd="pw", roles=[{"role": "read", "db": "enrichd"}])
    server.stop()
    server = EmbeddedServer(data, options=("--auth",))
    server.start()
    yield server
    server.stop()


async def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(ServerUnreachable, match=r"mongodb://ada:\*\*\*@127\.0\.0\.1:\d+/ within 2 s"):
        async with connect(_config(f"mongodb://ada:pw@127.0.0.1:{free_port()}/")):
            pass


@pytest.mark.parametrize(
    ("user", "error"),
    [("ada:wrong@", CredentialsRefused), ("eve:pw@", CredentialsRefused), ("", PrivilegeMissing)],
)
async def test_refused_credentials_are_told_without_the_password(
    guarded: EmbeddedServer, user: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        async with connect(_config(guarded.uri.replace("://", f"://{user}"))):
            pass
    assert "wrong" not in str(caught.value)
    assert str(guarded.port) in str(caught.value)


@pytest.mark.parametrize(
    ("user", "refused"),
    [("ada", set()), ("bob", {"write the images", "write enrichd's own collections"})],  # bob may only read
)
async def test_missing_privileges_are_found_without_leaving_a_trace(
    guarded: EmbeddedServer, user: str, refused: set[str]
) -> None:
    async with connect(_config(guarded.uri.replace("://", f"://{user}:pw@"))) as collections:
        assert refused <= set(found := await try_privileges(collections, "nobody"))
        assert refused or not found
    async with connect(_config(guarded.uri.replace("://", "://ada:pw@"))) as collections:
        assert await collections.state.count_documents({}) == 0
        assert await collections.images.count_documents({}) == 0


async def test_right_credentials_are_let_in(guarded: EmbeddedServer) -> None:
    async with connect(_config(guarded.uri.replace("://", "://ada:pw@"))) as collections:
        assert await collections.images.count_documents({}) == 0


@pytest.mark.parametrize("uri", ["mongo://x", "mongodb://", "mongodb://a:b:c@x/", "mongodb://x:port/"])
async def test_a_uri_that_is_none_is_a_wrong_setting(uri: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"mongo\.uri is not valid"):
        async with connect(_config(uri)):
            pass


async def test_only_a_replica_set_is_good_enough(tmp_path: Path, server: EmbeddedServer) -> None:
    standalone = EmbeddedServer(tmp_path / "data", options=("--standalone",))
    standalone.start()
    try:
        mongo = _config(standalone.uri).mongo
        async with open_client(mongo, standalone.uri) as client:
            with pytest.raises(NoReplicaSet, match=r"rs\.initiate"):
                (await greet(client, mongo, standalone.uri)).require_change_streams()
    finally:
        standalone.stop()
    async with open_client(mongo, server.uri) as client:
        greeted = await greet(client, mongo, server.uri)
    greeted.require_change_streams()


async def test_an_old_server_is_refused(server: EmbeddedServer) -> None:
    mongo = _config(server.uri).mongo
    async with open_client(mongo, server.uri) as client:
        greeted = await greet(client, mongo, server.uri)
    with pytest.raises(ServerTooOld):
        replace(greeted, wire_version=13).require_change_streams()  # MongoDB 5.0


async def test_a_command_uses_the_running_embedded_server_or_starts_one(tmp_path: Path) -> None:
    config = _config(None, **{"embedded.data": tmp_path / "data"})
    async with server_uri(config):  # as the daemon does, which alone begins an empty database
        pass
    async with connect(config) as collections:
        await collections.images.insert_one({"_id": 1})
        started = running(config.embedded.folder)
        assert started is not None
        async with connect(config) as again:  # the same server, not a second one
            assert await again.images.count_documents({}) == 1
        assert running(config.embedded.folder) == started
    assert running(config.embedded.folder) is None


async def test_a_command_begins_no_database(tmp_path: Path) -> None:
    config = _config(None, **{"embedded.data": tmp_path / "data"})
    with pytest.raises(NoDatabase, match="enrichd run"):
        async with connect(config):
            pass
    assert not exists(tmp_path)


def test_a_second_server_on_the_same_data_leaves_the_first_alone(tmp_path: Path) -> None:
    first, second = EmbeddedServer(tmp_path / "data"), EmbeddedServer(tmp_path / "data")
    first.start()
    try:
        with pytest.raises(EmbeddedFailed):
            second.start()
        assert running(tmp_path / "data") == first.uri
    finally:
        first.stop()


def test_a_crashed_server_is_not_taken_for_running(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "data")
    server.start()
    server.kill()
    assert running(tmp_path / "data") is None

"""The way to the database: the configured server, or the embedded one, opened and checked."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import ConfigurationError, InvalidURI, OperationFailure, PyMongoError, ServerSelectionTimeoutError

from daemon.config import Config, ConfigInvalid, Mongo
from daemon.embedded import EmbeddedServer, end, exists, running
from daemon.leases import live_daemons
from daemon.store.collections import Collections, Document, open_collections
from daemon.store.leases import LeaseStore
from enrichers.errors import EnrichdError

log = logging.getLogger(__name__)

#: wire version of MongoDB 6.0, the oldest server whose change streams do all that enrichd asks of them
OLDEST_WIRE_VERSION = 17
#: error codes of a server that does not know who asks or does not let them
AUTHENTICATION_FAILED, UNAUTHORIZED = 18, 13


class ServerUnreachable(EnrichdError):
    """No MongoDB server answers."""

    transient = True


class NoDatabase(EnrichdError):
    """There is no database yet."""


class CredentialsRefused(EnrichdError):
    """The server refuses the user name or the password."""


class PrivilegeMissing(EnrichdError):
    """The user may not do what enrichd has to do."""


class NoReplicaSet(EnrichdError):
    """The server is no replica set, and only a replica set or a sharded cluster has change streams."""


class ServerTooOld(EnrichdError):
    """The server is older than MongoDB 6.0."""


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself."""

    address: str  #: the URI without its secrets
    replica_set: str | None
    sharded: bool
    wire_version: int

    def require_change_streams(self) -> None:
        """Raises NoReplicaSet or ServerTooOld."""
        if self.replica_set is None and not self.sharded:
            raise NoReplicaSet(
                f"The server at {self.address} is no replica set, and change streams need one. "
                "Start it with --replSet rs0 and run rs.initiate() once in mongosh; one member is enough."
            )
        if self.wire_version < OLDEST_WIRE_VERSION:
            raise ServerTooOld(f"The server at {self.address} is older than MongoDB 6.0.")


def open_client(mongo: Mongo, uri: str) -> AsyncMongoClient[Document]:
    """A client that has not spoken to the server yet. Raises ConfigInvalid for a URI that is none."""
    try:
        return AsyncMongoClient(
            uri,
            appname="enrichd",
            tz_aware=True,
            serverSelectionTimeoutMS=round(mongo.timeout_s * 1000),
            connectTimeoutMS=round(mongo.timeout_s * 1000),
        )
    except (InvalidURI, ConfigurationError, ValueError) as error:
        raise ConfigInvalid(f"mongo.uri is not valid: {error}") from None


async def greet(client: AsyncMongoClient[Document], mongo: Mongo, uri: str) -> Server:
    """Asks the server who it is. Raises ServerUnreachable, CredentialsRefused or PrivilegeMissing."""
    address = Mongo(uri=uri).masked_uri or uri
    try:
        hello: dict[str, Any] = await client.admin.command("hello")
        await client[mongo.database].command("listCollections", nameOnly=True, authorizedCollections=True)
    except PyMongoError as error:
        raise explain(error, address, mongo.timeout_s) from None
    return Server(
        address=address,
        replica_set=hello.get("setName"),
        sharded=hello.get("msg") == "isdbgrid",
        wire_version=int(hello.get("maxWireVersion", 0)),
    )


def explain(error: PyMongoError, address: str, timeout_s: float) -> EnrichdError:
    """The error that tells a user what a driver's error means and what to do about it."""
    code = error.code if isinstance(error, OperationFailure) else None
    if code == AUTHENTICATION_FAILED or "authentication failed" in str(error).lower():
        return CredentialsRefused(f"The server at {address} refuses the user name or the password of mongo.uri.")
    if code == UNAUTHORIZED:
        reason = str(error).partition(", full error")[0]
        return PrivilegeMissing(
            f"The server at {address} does not let enrichd in: {reason}. "
            "Put a user into mongo.uri who has readWrite on the database (docs/operations.md)."
        )
    if isinstance(error, ServerSelectionTimeoutError):
        return ServerUnreachable(
            f"No MongoDB server that takes writes answers at {address} within {timeout_s:g} s: "
            f"{str(error).partition(' (configured timeouts')[0].partition(', Timeout:')[0]}. "
            "Start it, or correct mongo.uri."
        )
    return EnrichdError(f"The server at {address} answers with an error: {str(error).partition(', full error')[0]}")


def require_database(config: Config) -> None:
    """Raises NoDatabase where no server is configured and the embedded one has no data: only a daemon begins some, so
    that a command asked in the wrong folder or as another user leaves no empty database behind."""
    folder = config.embedded.folder
    if config.mongo.uri is None and not exists(folder):
        raise NoDatabase(
            f"There is no database in {folder}: `enrichd run` starts one there, and mongo.uri (--uri) names another."
        )


@asynccontextmanager
async def server_uri(config: Config) -> AsyncIterator[str]:
    """The configured server's URI, else that of the embedded server: the running one, or one that is started, and that
    ends with the block unless a daemon works on it by then. Raises EmbeddedMissing or EmbeddedFailed."""
    if config.mongo.uri is not None:
        yield config.mongo.uri
    elif (uri := running(config.embedded.folder)) is not None:
        yield uri
    else:
        server = EmbeddedServer(config.embedded.folder, config.embedded.port)
        server.start()
        used = False
        try:
            try:
                yield server.uri
            finally:
                used = await _is_used(config, server.uri)
        finally:
            if not used:
                server.stop()


async def _is_used(config: Config, uri: str) -> bool:
    try:
        async with open_client(config.mongo, uri) as client:
            collections = open_collections(client, config.mongo.database, config.mongo.collection)
            return bool(await live_daemons(LeaseStore(collections)))
    except PyMongoError:
        return False


async def end_adopted(config: Config, collections: Collections) -> None:
    """Ends the embedded server that an earlier daemon left behind, once the last daemon has given its lease back."""
    folder = config.embedded.folder
    if config.mongo.uri is not None or (uri := running(folder)) is None or await _is_used(config, uri):
        return
    try:
        pid = int((await collections.database.client.admin.command("serverStatus"))["pid"])
    except PyMongoError as error:
        log.warning("the embedded server at %s could not be told to end: %s", uri, error)
        return
    end(folder, pid)


@asynccontextmanager
async def connect(config: Config) -> AsyncIterator[Collections]:
    """The open collections of a server that answered. Raises NoDatabase, ConfigInvalid, ServerUnreachable,
    CredentialsRefused, PrivilegeMissing, EmbeddedMissing or EmbeddedFailed."""
    require_database(config)
    async with server_uri(config) as uri, open_client(config.mongo, uri) as client:
        await greet(client, config.mongo, uri)
        yield open_collections(client, config.mongo.database, config.mongo.collection)

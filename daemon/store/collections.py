"""The collections enrichd uses, opened with the read and write concerns that its promises need."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bson.codec_options import CodecOptions
from pymongo import AsyncMongoClient, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern

Document = dict[str, Any]

#: enrichd's own collections beside `faces` and `identities`
STATE, LEASES, FAILURES, LINKS, AUDIT = (
    "enrichd_state",
    "enrichd_leases",
    "enrichd_failures",
    "enrichd_links",
    "enrichd_audit",
)

#: a write counts once a majority has it in its journal: an acknowledged result survives any failover
SAFE = WriteConcern(w="majority", j=True)


@dataclass(frozen=True)
class Collections:
    """The open collections of one database. Times read from it are aware and in UTC."""

    database: AsyncDatabase[Document]
    images: AsyncCollection[Document]  #: the user's
    faces: AsyncCollection[Document]
    identities: AsyncCollection[Document]
    state: AsyncCollection[Document]
    leases: AsyncCollection[Document]
    failures: AsyncCollection[Document]
    links: AsyncCollection[Document]
    audit: AsyncCollection[Document]


def open_collections(client: AsyncMongoClient[Document], database: str, images: str) -> Collections:
    """The collections of `database`; `images` is the name of the user's collection."""
    options: CodecOptions[Document] = CodecOptions(tz_aware=True)
    db = client.get_database(database, codec_options=options, write_concern=SAFE, read_concern=ReadConcern("majority"))
    return Collections(
        database=db,
        images=db[images],
        faces=db["faces"],
        identities=db["identities"],
        state=db[STATE],
        leases=db[LEASES],
        failures=db[FAILURES],
        links=db[LINKS],
        audit=db[AUDIT],
    )


def all_of(*queries: Mapping[str, Any]) -> Document:
    """The query of what all of `queries` match: their conditions side by side, since the embedded server uses no index
    for a query with an operator at its top; those on a field that has one already within `$and`."""
    merged: Document = {}
    again: list[Document] = []
    for query in queries:
        again += [{field: condition} for field, condition in query.items() if field in merged]
        merged |= {field: condition for field, condition in query.items() if field not in merged}
    if again:
        return {"$and": [merged, *again]}
    return merged

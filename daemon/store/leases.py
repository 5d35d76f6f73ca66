"""Which daemon works on what: the members, and one table of buckets and singletons that they share out among them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from daemon.clock import utc_now
from daemon.store.collections import Collections, Document

#: parts of the collection by hash of the documentKey; never changed, or daemons of two versions would disagree
BUCKETS = 64
#: work that one daemon does for all
SINGLETONS = ("verify", "recluster")

Token = Mapping[str, Any]
_TABLE = "table"


@dataclass(frozen=True, slots=True)
class Member:
    """A daemon that registered. `token`: the resume token behind which its work is safe; `live`: its lease had not
    expired by the server's clock when this was read."""

    id: str
    live: bool
    token: Token | None
    host: str
    machine: str | None  #: where its `pid` means something
    pid: int
    plan: str
    url: str | None = None  #: of its health endpoint
    since: datetime | None = None  #: when it registered


@dataclass(frozen=True, slots=True)
class Bucket:
    """`token`: from where its changes must be read again before they count as seen; None: nothing is owed."""

    owner: str | None
    token: Token | None


@dataclass(frozen=True, slots=True)
class Table:
    """Who owns what at one moment."""

    buckets: tuple[Bucket, ...]
    singletons: Mapping[str, str | None] = field(default_factory=dict)

    def owned(self, id: str) -> list[int]:
        return [number for number, bucket in enumerate(self.buckets) if bucket.owner == id]

    @property
    def free(self) -> list[int]:
        return [number for number, bucket in enumerate(self.buckets) if bucket.owner is None]


class LeaseStore:
    """The documents of `enrichd_leases`: `table`, one for each member, and one for each work that is under way alone.
    Every change is a comparison and a write in one, so that of two daemons one wins."""

    def __init__(self, collections: Collections) -> None:
        self._leases = collections.leases

    async def register(self, member: Member, lifetime_s: float) -> None:
        """Adds a member, and the table where there is none yet."""
        document = {
            "_id": _id(member.id),
            "host": member.host,
            "machine": member.machine,
            "pid": member.pid,
            "plan": member.plan,
            "token": member.token,
            "since": member.since,
        }
        await self._leases.update_one({"_id": _id(member.id)}, {"$set": document}, upsert=True)
        await self.renew(member.id, lifetime_s)
        empty = {
            "buckets": [{"owner": None, "token": None}] * BUCKETS,
            "singletons": dict.fromkeys(SINGLETONS),
        }
        await self._leases.update_one({"_id": _TABLE}, {"$setOnInsert": empty}, upsert=True)

    async def renew(self, id: str, lifetime_s: float) -> bool:
        """Lets the member live on for `lifetime_s` from now by the server's clock; False where it was given up."""
        until = {"$add": ["$$NOW", round(lifetime_s * 1000)]}
        result = await self._leases.update_one({"_id": _id(id)}, [{"$set": {"until": until}}])
        return result.matched_count == 1

    async def save_token(self, id: str, token: Token | None) -> bool:
        """False where the member was given up for dead."""
        result = await self._leases.update_one({"_id": _id(id)}, {"$set": {"token": token}})
        return result.matched_count == 1

    async def publish(self, id: str, url: str) -> None:
        """Notes where the member's health endpoint is."""
        await self._leases.update_one({"_id": _id(id)}, {"$set": {"url": url}})

    async def members(self) -> list[Member]:
        """All members, dead ones that nobody cleared away included, in the order of their ids."""
        cursor = await self._leases.aggregate(
            [
                {"$match": {"until": {"$gt": datetime(1970, 1, 2, tzinfo=UTC)}}},
                {"$set": {"now": "$$NOW"}},
                {"$sort": {"_id": 1}},
            ]
        )
        return [_member(document) async for document in cursor]

    async def table(self) -> Table:
        document = await self._leases.find_one({"_id": _TABLE})
        if document is None:
            return Table(())
        buckets = tuple(Bucket(entry.get("owner"), entry.get("token")) for entry in document["buckets"])
        return Table(buckets, document["singletons"])

    async def any_joined(self) -> bool:
        """Whether a daemon ever worked on this collection."""
        return bool((await self.table()).buckets)

    async def clear_away(self, member: Member) -> None:
        """Frees all that a dead member owned, to be read again from where its work was safe, then forgets it."""
        freed = {"owner": None, "token": {"$ifNull": ["$$bucket.token", {"$literal": member.token}]}}
        bucket = {"$cond": [{"$eq": ["$$bucket.owner", member.id]}, freed, "$$bucket"]}
        change: Document = {"buckets": {"$map": {"input": "$buckets", "as": "bucket", "in": bucket}}}
        for name in SINGLETONS:
            path = f"singletons.{name}"
            change[path] = {"$cond": [{"$eq": [f"${path}", member.id]}, None, f"${path}"]}
        await self._leases.update_one({"_id": _TABLE}, [{"$set": change}])
        await self._leases.delete_one({"_id": _id(member.id)})

    async def seize(self, name: str, holder: str, lifetime_s: float) -> bool:
        """Takes or renews the turn at the work `name` for `lifetime_s` seconds; False while another holder has it."""
        now = utc_now()
        free = {"_id": f"work:{name}", "$or": [{"holder": holder}, {"expires": {"$lt": now}}]}
        change = {"$set": {"holder": holder, "expires": now + timedelta(seconds=lifetime_s)}}
        try:
            await self._leases.update_one(free, change, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    async def leave(self, name: str, holder: str) -> None:
        await self._leases.delete_one({"_id": f"work:{name}", "holder": holder})

    async def take(self, id: str, buckets: Iterable[int]) -> None:
        """Takes those of `buckets` that are free."""
        await self._write(
            UpdateOne({"_id": _TABLE, f"buckets.{n}.owner": None}, {"$set": {f"buckets.{n}.owner": id}})
            for n in buckets
        )

    async def release(self, id: str, buckets: Mapping[int, Token | None]) -> None:
        """Frees own buckets, each to be read again from its token."""
        await self._write(
            UpdateOne(
                {"_id": _TABLE, f"buckets.{n}.owner": id}, {"$set": {f"buckets.{n}": {"owner": None, "token": token}}}
            )
            for n, token in buckets.items()
        )

    async def settle(self, id: str, buckets: Iterable[int]) -> None:
        """Nothing is owed to these own buckets any more."""
        await self._write(
            UpdateOne({"_id": _TABLE, f"buckets.{n}.owner": id}, {"$set": {f"buckets.{n}.token": None}})
            for n in buckets
        )

    async def take_singleton(self, id: str, name: str) -> bool:
        path = f"singletons.{name}"
        await self._leases.update_one({"_id": _TABLE, path: None}, {"$set": {path: id}})
        return (await self.table()).singletons.get(name) == id

    async def _write(self, operations: Iterable[UpdateOne]) -> None:
        batch: Sequence[UpdateOne] = list(operations)
        if batch:
            await self._leases.bulk_write(batch, ordered=False)


def _id(member: str) -> str:
    return f"daemon:{member}"


def _member(document: Document) -> Member:
    return Member(
        id=str(document["_id"]).removeprefix("daemon:"),
        live=document["until"] > document["now"],
        token=document.get("token"),
        host=str(document["host"]),
        machine=document.get("machine"),
        pid=int(document["pid"]),
        plan=str(document["plan"]),
        url=document.get("url"),
        since=document.get("since"),
    )

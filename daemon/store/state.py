"""enrichd's own state: the schema version, the stored plan, and the checkpoints of stream and sweep."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from bson import Timestamp
from pymongo import ReturnDocument

from daemon.plan import Plan, Step
from daemon.store.collections import Collections, Document


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """The active plan as the database has it; `older` are the hashes of the plans before it, latest first."""

    number: int
    plan: Plan
    older: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SweepMark:
    """Whether a sweep is needed, or one that reads every document; `number` counts the marks since ever."""

    number: int
    needed: bool
    verify: bool


class State:
    """The documents of `enrichd_state`, each with a fixed `_id`."""

    def __init__(self, collections: Collections) -> None:
        self._state = collections.state

    async def _get(self, name: str) -> Document:
        return await self._state.find_one({"_id": name}) or {}

    async def schema_version(self) -> int:
        """0 where no migration has run."""
        return int((await self._get("schema")).get("version", 0))

    async def set_schema_version(self, version: int) -> None:
        await self._state.update_one({"_id": "schema"}, {"$set": {"version": version}}, upsert=True)

    async def plan(self) -> StoredPlan | None:
        document = await self._get("plan")
        if not document:
            return None
        steps = tuple(
            Step(step["name"], step["fingerprint"], tuple(step["requires"]), step.get("model"))
            for step in document["enrichers"]
        )
        return StoredPlan(int(document["number"]), Plan(steps), tuple(document["older"]))

    async def activate(self, plan: Plan, now: datetime) -> StoredPlan:
        """Makes `plan` the active one, and numbers it; nothing changes where it is already."""
        before = await self.plan()
        if before is not None and before.plan.hash == plan.hash:
            return before
        former = [] if before is None else [before.plan.hash, *before.older]
        older = tuple(hash for hash in dict.fromkeys(former) if hash != plan.hash)
        number = 1 if before is None else before.number + 1
        document = {
            "number": number,
            "hash": plan.hash,
            "enrichers": [
                {"name": s.name, "fingerprint": s.fingerprint, "requires": list(s.requires), "model": s.model}
                for s in plan.steps
            ],
            "older": list(older),
            "activated_at": now,
        }
        unchanged = {"_id": "plan", "number": None if before is None else before.number}
        await self._state.update_one(unchanged, {"$set": document}, upsert=True)
        return StoredPlan(number, plan, older)

    async def mark_sweep(self, reason: str, at: Timestamp | None, *, verify: bool = False) -> None:
        """Notes that a sweep must find what the stream does not deliver, since the operation time `at`; `verify`: one
        that reads every document."""
        setting: Document = {"needed": reason, "since": at} | ({"verify": True} if verify else {})
        await self._state.update_one({"_id": "sweep"}, {"$set": setting, "$inc": {"marks": 1}}, upsert=True)

    async def sweep_mark(self) -> SweepMark:
        """What sweeps are asked for; to be given to `clear_sweep` by the one that has done it."""
        document = await self._get("sweep")
        return SweepMark(int(document.get("marks", 0)), bool(document.get("needed")), bool(document.get("verify")))

    async def clear_sweep(self, mark: SweepMark) -> bool:
        """A sweep that began when `mark` stood has ended: clears it unless a new one came since."""
        cleared = {"needed": None, "verify": False}
        result = await self._state.update_one({"_id": "sweep", "marks": mark.number}, {"$set": cleared})
        return result.matched_count == 1

    async def last_verified(self) -> datetime | None:
        """When a verifying sweep ended last."""
        at = (await self._get("verify")).get("at")
        return at if isinstance(at, datetime) else None

    async def save_verified(self, now: datetime, counts: Mapping[str, int]) -> None:
        await self._state.update_one({"_id": "verify"}, {"$set": {"at": now, **counts}}, upsert=True)

    async def server_time(self) -> datetime:
        """The server's clock, by which leases expire."""
        document = await self._state.find_one_and_update(
            {"_id": "clock"}, [{"$set": {"now": "$$NOW"}}], upsert=True, return_document=ReturnDocument.AFTER
        )
        assert document is not None
        now: datetime = document["now"]
        return now

"""Reads image documents and writes enrichments into them: conditional, idempotent, many at a time."""

import logging
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import numpy as np
from bson import Binary, ObjectId, Regex, encode
from bson.binary import BinaryVectorDtype
from pymongo import IndexModel, UpdateOne
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure

from daemon.plan import FARTHEST_RETRY, ImageDocument, Plan, Step
from daemon.retry import RetryPolicy
from daemon.store.collections import Collections, Document, all_of
from enrichers.contract import Failure, Result

log = logging.getLogger(__name__)

ENRICHMENTS, ENRICHMENT = "enrichments", "enrichment"

#: states of documents that hold answers
ANSWERED = ("complete", "partial", "failed")
#: bytes of one enricher's answer; a document never grows towards 16 MB
MAX_ANSWER_BYTES = 1_000_000
#: a binary source up to this size is compared whole when a result is written; a larger one by its length
MAX_COMPARED_BYTES = 256 * 1024
#: codes of write errors that say nothing about the document: the server steps down, shuts down, is locked or late. From
#: the driver specifications' retryable errors, and WriteConflict, LockTimeout, MaxTimeMSExpired, Interrupted.
TRANSIENT_WRITE_ERRORS = frozenset(
    {6, 7, 24, 46, 50, 64, 79, 89, 91, 100, 112, 134, 189, 202, 225, 251, 262, 263, 9001}
    | {10058, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
)
#: from so many documents on, one transaction costs less than a commit for each
TOGETHER = 8
#: a time that is before every retry: a range with two sides uses the index and leaves null out
_LONG_AGO = datetime(1970, 1, 2, tzinfo=UTC)


class Written(StrEnum):
    """What became of one outcome."""

    WRITTEN = "written"
    CHANGED = "changed"  #: the document changed after it was read: it must be looked at again
    GONE = "gone"
    SET_ASIDE = "set_aside"  #: the document cannot hold it; the failures collection says why


@dataclass(frozen=True, slots=True)
class Answer:
    """One enricher's outcome for one image."""

    outcome: Result | Failure
    ms: float = 0.0  #: share of its batch's time
    device: str = "cpu"


@dataclass(slots=True)
class Outcome:
    """All that one look at an image found out. With `unreadable` no enricher ran."""

    document: ImageDocument
    source_ref: str
    answers: dict[str, Answer] = field(default_factory=dict)
    image_sha256: str | None = None
    unreadable: Failure | None = None
    face_items: list[Document] | None = None


def plain(value: Any) -> Any:
    """An answer's value as BSON takes it: a float32 array of one axis becomes a vector, other arrays lists."""
    if isinstance(value, np.ndarray):
        if value.ndim == 1 and value.dtype == np.float32:
            return Binary.from_vector(value.tolist(), BinaryVectorDtype.FLOAT32)
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def read_path(document: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of sub-documents; None where there is none."""
    value: Any = document
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


async def sources_of(collections: Collections, ids: Sequence[Any], source: str) -> dict[Any, Any]:
    """The source, at the dotted path `source`, of image documents by id; bytes only by their length."""
    cursor = collections.images.find({"_id": {"$in": list(ids)}}, {source: 1})
    return {document["_id"]: shown_source(read_path(document, source)) async for document in cursor}


def shown_source(source: Any) -> Any:
    """A source as people are shown it: bytes by their length, all else as it is."""
    return f"{len(source)} bytes" if isinstance(source, bytes) else source


class Images:
    """The images collection as the daemon uses it."""

    def __init__(
        self, collections: Collections, source: str, filter: Mapping[str, Any], key_fields: Sequence[str] = ("_id",)
    ) -> None:
        """`source`: dotted path of the source field; `filter`: which documents are enriched at all; `key_fields`: the
        fields of a documentKey (more than `_id` on a sharded collection)."""
        self._images = collections.images
        self._failures = collections.failures
        self._source = source
        self._filter = dict(filter)
        self._key_fields = tuple(key_fields)

    # --- reading

    def _projection(self, plan: Plan) -> Document:
        required = {name for step in plan.steps for name in step.requires}
        fields = {*self._key_fields, self._source, ENRICHMENT}
        fields |= {f"{ENRICHMENTS}.{step.name}" + ("" if step.name in required else ".run") for step in plan.steps}
        return dict.fromkeys(sorted(fields), 1)

    def _view(self, document: Document) -> ImageDocument:
        enrichment, enrichments = document.get(ENRICHMENT), document.get(ENRICHMENTS)
        return ImageDocument(
            key=self.key_of(document),
            source=read_path(document, self._source),
            enrichment=enrichment if isinstance(enrichment, Mapping) else {},
            enrichments=enrichments if isinstance(enrichments, Mapping) else {},
        )

    def key_of(self, document: Mapping[str, Any]) -> Document:
        return {name: read_path(document, name) for name in self._key_fields}

    async def load(self, keys: Sequence[Mapping[str, Any]], plan: Plan) -> list[ImageDocument]:
        """The documents with these keys that are there and pass the filter, in no order."""
        query = all_of({"_id": {"$in": [key["_id"] for key in keys]}}, self._filter)
        cursor = self._images.find(query, self._projection(plan))
        return [self._view(document) async for document in cursor]

    async def exist(self, ids: Sequence[Any]) -> set[Any]:
        """Those of `ids`, encoded as BSON, that have a document."""
        cursor = self._images.find({"_id": {"$in": list(ids)}}, {"_id": 1})
        return {encode({"_id": document["_id"]}) async for document in cursor}

    async def all(self, plan: Plan) -> AsyncIterator[ImageDocument]:
        """Every document that passes the filter, by one cursor."""
        async for document in self._images.find(self._filter, self._projection(plan), batch_size=500):
            yield self._view(document)

    def _open(self, query: Document) -> Document:
        return all_of(query, {self._source: {"$ne": None}}, self._filter)

    async def stale(self, plan_hash: str | None) -> AsyncIterator[Document]:
        """Keys of the documents whose enrichment was completed under the plan `plan_hash` (None: under none)."""
        query = self._open({f"{ENRICHMENT}.plan": plan_hash})
        async for document in self._images.find(query, dict.fromkeys(self._key_fields, 1), batch_size=200):
            yield self.key_of(document)

    async def due(self, now: datetime) -> AsyncIterator[Document]:
        """Keys of the documents with a retry that is due, or that a clock which was ahead put off too far."""
        for span in ({"$gt": _LONG_AGO, "$lte": now}, {"$gt": now + FARTHEST_RETRY}):
            query = self._open({f"{ENRICHMENT}.next_attempt_at": span})
            async for document in self._images.find(query, dict.fromkeys(self._key_fields, 1), batch_size=200):
                yield self.key_of(document)

    async def count_stale(self, plan_hash: str | None) -> int:
        return await self._images.count_documents(self._open({f"{ENRICHMENT}.plan": plan_hash}))

    async def count_answered(self, plan_hash: str) -> dict[str, int]:
        """How many documents that were completed under a plan have answers, by state; states without any left out."""
        counts = {
            state: await self._images.count_documents(
                self._open({f"{ENRICHMENT}.plan": plan_hash, f"{ENRICHMENT}.state": state})
            )
            for state in ANSWERED
        }
        return {state: count for state, count in counts.items() if count}

    async def any_enriched(self) -> bool:
        """Whether any document holds results of an earlier run."""
        return await self._images.find_one({f"{ENRICHMENT}.plan": {"$gt": ""}}, {"_id": 1}) is not None

    # --- writing

    async def write(self, outcomes: Sequence[Outcome], plan: Plan, retry: RetryPolicy, now: datetime) -> list[Written]:
        """Writes each outcome where its document is still as it was read; tells for each what became of it."""
        if not outcomes:
            return []
        updates = [update_of(outcome, plan, retry, now) for outcome in outcomes]
        operations = [
            UpdateOne(self._unchanged(outcome), update) for outcome, update in zip(outcomes, updates, strict=True)
        ]
        try:
            matched, refused = await self._apply(operations)
        except DocumentTooLarge:  # the driver refuses to send a filter of more than 16 MB
            if len(outcomes) > 1:
                return [(await self.write([outcome], plan, retry, now))[0] for outcome in outcomes]
            matched, refused = 0, {0: {"errmsg": "the document's source is too large to be compared"}}
        written = [Written.WRITTEN] * len(outcomes)
        if matched < len(outcomes) - len(refused):
            written = await self._what_became(outcomes, now)
        for index, entry in refused.items():
            written[index] = await self._set_aside(outcomes[index], entry, plan, now)
        return written

    async def _apply(self, operations: Sequence[UpdateOne]) -> tuple[int, dict[int, Document]]:
        """How many of the updates matched a document, and the errors of those that the server refused."""
        if len(operations) >= TOGETHER:
            try:
                return await self._apply_together(operations), {}
            except OperationFailure as error:  # another write came between, or a document refused: each on its own
                log.debug("%d documents could not be written in one transaction: %s", len(operations), error)
        try:
            return (await self._images.bulk_write(operations, ordered=False)).matched_count, {}
        except BulkWriteError as error:
            details: Document = dict(error.details or {})
            refused: dict[int, Document] = {entry["index"]: entry for entry in details["writeErrors"]}
            if details.get("writeConcernErrors"):
                raise
            if any(entry.get("code") in TRANSIENT_WRITE_ERRORS for entry in refused.values()):
                raise
            return details["nMatched"], refused

    async def _apply_together(self, operations: Sequence[UpdateOne]) -> int:
        async with (
            self._images.database.client.start_session() as session,
            await session.start_transaction(write_concern=self._images.write_concern),
        ):
            return (await self._images.bulk_write(operations, ordered=False, session=session)).matched_count

    def _unchanged(self, outcome: Outcome) -> Document:
        document = outcome.document
        query: Document = {**document.key, f"{ENRICHMENT}.at": _equals(document.enrichment.get("at"))}
        source = document.source
        large = _large_binaries(source, self._source)
        if large:
            query["$expr"] = {"$and": [{"$eq": [_size(path), length]} for path, length in large.items()]}
            parts = source.items() if isinstance(source, Mapping) else ()
            paths = {f"{self._source}.{name}": value for name, value in parts if _is_plain(name)}
            query |= {path: _equals(value) for path, value in paths.items() if path not in large}
        else:
            query[self._source] = _equals(source)
        return query

    async def _what_became(self, outcomes: Sequence[Outcome], now: datetime) -> list[Written]:
        ids = [outcome.document.key["_id"] for outcome in outcomes]
        cursor = self._images.find({"_id": {"$in": ids}}, {f"{ENRICHMENT}.at": 1, f"{ENRICHMENT}.source_ref": 1})
        found = {encode({"_id": d["_id"]}): d.get(ENRICHMENT) or {} async for d in cursor}
        written = []
        for outcome in outcomes:
            enrichment = found.get(encode({"_id": outcome.document.key["_id"]}))
            if enrichment is None:
                written.append(Written.GONE)
            elif enrichment.get("at") == now and enrichment.get("source_ref") == outcome.source_ref:
                written.append(Written.WRITTEN)
            else:
                written.append(Written.CHANGED)
        return written

    async def _set_aside(self, outcome: Outcome, entry: Document, plan: Plan, now: datetime) -> Written:
        """Tells on the document itself that it cannot hold the answers; where not even that fits, in `failures`."""
        message = f"The document cannot hold the results: {entry.get('errmsg', 'write refused')}"
        error = {"type": "DocumentRefused", "message": message[:500]}
        minimal = {
            "$set": {
                f"{ENRICHMENT}.state": "failed",
                f"{ENRICHMENT}.source_ref": outcome.source_ref,
                f"{ENRICHMENT}.error": error,
                f"{ENRICHMENT}.at": now,
                f"{ENRICHMENT}.plan": plan.hash,
                f"{ENRICHMENT}.refused": {"plan": plan.hash, "requested": dict(outcome.document.requested())},
            }
        }
        try:
            await self._images.bulk_write([UpdateOne(self._unchanged(outcome), minimal)])
        except (BulkWriteError, DocumentTooLarge) as refusal:
            errors = (refusal.details or {}).get("writeErrors", []) if isinstance(refusal, BulkWriteError) else [{}]
            if not errors or any(entry.get("code") in TRANSIENT_WRITE_ERRORS for entry in errors):
                raise
            failure = {"at": now, "source_ref": outcome.source_ref, "error": error, "key": dict(outcome.document.key)}
            await self._failures.update_one({"_id": outcome.document.key["_id"]}, {"$set": failure}, upsert=True)
        return Written.SET_ASIDE

    async def set_aside_unmatched(self, outcome: Outcome, now: datetime) -> None:
        """Notes that a document cannot be written to, though it is as it was read."""
        error = {"type": "DocumentUnmatched", "message": "The document cannot be found again by what was read of it."}
        failure = {"at": now, "source_ref": outcome.source_ref, "error": error, "key": dict(outcome.document.key)}
        await self._failures.update_one({"_id": outcome.document.key["_id"]}, {"$set": failure}, upsert=True)

    async def set_aside(self) -> set[bytes]:
        """The ids, encoded as BSON, of the documents that could not hold any result."""
        return {encode({"_id": failure["_id"]}) async for failure in self._failures.find({}, {"_id": 1})}

    async def touch_plan(self, documents: Sequence[ImageDocument], plan: Plan) -> None:
        """Notes that these documents lack nothing under `plan`, unless they changed since they were read."""
        operations = [
            UpdateOne(
                {**document.key, f"{ENRICHMENT}.at": _equals(document.enrichment.get("at"))},
                {"$set": {f"{ENRICHMENT}.plan": plan.hash}},
            )
            for document in documents
        ]
        if operations:
            await self._images.bulk_write(operations, ordered=False)

    async def forget_plan(self, keys: Sequence[Mapping[str, Any]]) -> None:
        """Notes durably that these documents are to be looked at: the next fast sweep finds them."""
        if keys:
            await self._images.bulk_write(
                [UpdateOne(dict(key), {"$unset": {f"{ENRICHMENT}.plan": ""}}) for key in keys], ordered=False
            )

    async def forget_run(self, key: Mapping[str, Any], name: str) -> None:
        """Has one enricher run again on a document, whatever it says of itself."""
        unsetting = {f"{ENRICHMENT}.plan": "", f"{ENRICHMENTS}.{name}.run": ""}
        await self._images.update_one(dict(key), {"$unset": unsetting})

    async def ensure_indexes(self, indexes: Sequence[IndexModel]) -> None:
        """Creates the indexes where the collection is there; one that was dropped comes back without them."""
        if await self._images.database.list_collection_names(filter={"name": self._images.name}):
            await self._images.create_indexes(list(indexes))

    async def request(self, query: Mapping[str, Any], names: Iterable[str], token: ObjectId) -> int:
        """Asks for the enrichers `names` to be run again on the matching documents; how many there are."""
        update = {
            "$set": {f"{ENRICHMENT}.requested.{name}": token for name in names},
            "$unset": {f"{ENRICHMENT}.plan": ""},
        }
        result = await self._images.update_many(all_of(query, self._filter), update)
        return result.matched_count


def _equals(value: Any) -> Document:
    """Equality as a condition beside `_id`. A plain one would have the embedded server search its list of indexes for
    one of this field, at every update; MongoDB refuses `$ne` of a regular expression."""
    return {"$eq": value} if isinstance(value, (Regex, re.Pattern)) else {"$not": {"$ne": value}}


def _large_binaries(source: Any, path: str) -> dict[str, int]:
    """Lengths of the parts of a source that are compared by length alone, by their dotted path."""
    if isinstance(source, (bytes, Binary)):
        return {path: len(source)} if len(source) > MAX_COMPARED_BYTES else {}
    found: dict[str, int] = {}
    for name, value in source.items() if isinstance(source, Mapping) else ():
        if isinstance(value, (bytes, Binary)) and _is_plain(name):
            found |= _large_binaries(value, f"{path}.{name}")
    return found


def _is_plain(name: str) -> bool:
    """Whether a field of this name can be reached by a dotted path."""
    return bool(name) and "." not in name and not name.startswith("$")


def _size(path: str) -> Document:
    """The length of the binary at a path; -1 where another type stands there by now."""
    return {"$cond": [{"$eq": [{"$type": f"${path}"}, "binData"]}, {"$binarySize": f"${path}"}, -1]}


def update_of(outcome: Outcome, plan: Plan, retry: RetryPolicy, now: datetime) -> Document:
    """The update that writes an outcome: only below `enrichments` and `enrichment`, always field by field."""
    setting: Document = {}
    unsetting: Document = {f"{ENRICHMENT}.refused": ""}
    states: dict[str, str] = {}
    due: list[datetime] = []
    for step in plan.steps:
        answer = outcome.answers.get(step.name)
        if outcome.unreadable is not None:
            entry: Document = {"run": _skipped(outcome, step, now)}
        elif answer is not None:
            entry = _entry(outcome, step, answer, retry, now)
        else:
            run = outcome.document.run(step.name) or {}
            if outcome.image_sha256 not in (None, run.get("image_sha256", outcome.image_sha256)):
                unsetting[f"{ENRICHMENTS}.{step.name}.run"] = ""  # of other bytes, which stood under the same path
                states[step.name] = "failed"
                continue
            states[step.name] = str(run.get("state", "done"))
            if isinstance(at := run.get("next_attempt_at"), datetime):
                due.append(at)
            continue
        setting[f"{ENRICHMENTS}.{step.name}"] = entry
        states[step.name] = entry["run"]["state"]
        if (at := entry["run"].get("next_attempt_at")) is not None:
            due.append(at)
    if outcome.unreadable is not None:
        attempts = int(outcome.document.enrichment.get("attempts") or 0) if _same_source(outcome) else 0
        at = retry.decide(outcome.unreadable, attempts + 1, now).at
        due = [at] if at else []
        setting[f"{ENRICHMENT}.attempts"] = attempts + 1
        setting[f"{ENRICHMENT}.error"] = {"type": outcome.unreadable.type, "message": outcome.unreadable.message}
        state = "unreadable"
    else:
        unsetting[f"{ENRICHMENT}.attempts"] = unsetting[f"{ENRICHMENT}.error"] = ""
        state = overall_state(states.values())
    setting[f"{ENRICHMENT}.state"] = state
    if any(path.endswith(".run") for path in unsetting):  # the next fast sweep has it completed
        unsetting[f"{ENRICHMENT}.plan"] = ""
    else:
        setting[f"{ENRICHMENT}.plan"] = plan.hash
    setting[f"{ENRICHMENT}.source_ref"] = outcome.source_ref
    setting[f"{ENRICHMENT}.at"] = now
    if due:
        setting[f"{ENRICHMENT}.next_attempt_at"] = min(due)
    else:
        unsetting[f"{ENRICHMENT}.next_attempt_at"] = ""
    return {"$set": setting, "$unset": unsetting}


def overall_state(states: Iterable[str]) -> str:
    """The document's state from its runs' states: `complete`, `partial` or `failed`."""
    failed = [state == "failed" for state in states]
    if not any(failed):
        return "complete"
    return "failed" if all(failed) else "partial"


def _same_source(outcome: Outcome) -> bool:
    return outcome.document.enrichment.get("source_ref") == outcome.source_ref


def _provenance(outcome: Outcome, step: Step, now: datetime) -> Document:
    run: Document = {"fingerprint": step.fingerprint, "at": now}
    if step.model is not None:
        run["model"] = step.model
    if outcome.image_sha256 is not None:
        run["image_sha256"] = outcome.image_sha256
    if (token := outcome.document.requested().get(step.name)) is not None:
        run["request"] = token
    return run


def _skipped(outcome: Outcome, step: Step, now: datetime) -> Document:
    return {"state": "skipped", **_provenance(outcome, step, now)}


def _entry(outcome: Outcome, step: Step, answer: Answer, retry: RetryPolicy, now: datetime) -> Document:
    run = _provenance(outcome, step, now)
    run |= {"ms": round(answer.ms, 2), "device": answer.device}
    before = outcome.document.run(step.name) if _same_source(outcome) else None
    repeated = before is not None and before.get("fingerprint") == step.fingerprint and before.get("state") == "failed"
    attempts = (int(before.get("attempts") or 0) if before is not None and repeated else 0) + 1
    failure = answer.outcome
    if isinstance(failure, Result):
        content = plain(failure.answer)
        if outcome.face_items is not None and failure.faces:
            content["items"] = outcome.face_items
        if len(encode(content)) <= MAX_ANSWER_BYTES:
            return {**content, "run": {"state": "done", "attempts": attempts, **run}}
        failure = Failure("AnswerTooLarge", f"The answer is larger than {MAX_ANSWER_BYTES} bytes.")
    run |= {"error": {"type": failure.type, "message": failure.message[:2000]}, "attempts": attempts}
    if (at := retry.decide(failure, attempts, now).at) is not None:
        run["next_attempt_at"] = at
    return {"run": {"state": "failed", **run}}

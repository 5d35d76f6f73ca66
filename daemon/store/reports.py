"""What people at the command line ask of the collections: counts, failures, what is unfinished; and adding images."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pymongo import UpdateOne

from daemon.store.collections import Collections, Document, all_of
from daemon.store.faces import count_waiting
from daemon.store.images import ENRICHMENT, ENRICHMENTS, read_path, shown_source
from daemon.store.state import State

#: states that a look at an image ends in
STATES = ("complete", "partial", "failed", "unreadable")
TROUBLED = STATES[1:]
#: sources that are looked up or written in one call
CHUNK = 500


@dataclass(frozen=True, slots=True)
class Overview:
    """The collection at one moment."""

    documents: int  #: those that pass images.filter and have a source
    states: Mapping[str, int]  #: how many documents are in each state
    unfinished: int  #: documents not yet looked at under the active plan: `new` and `stale` ones
    new: int  #: documents never looked at
    stale: int  #: documents looked at under an earlier plan, or asked for again
    without_source: int  #: documents left alone until they have a source
    faces: int
    identities: int  #: active ones
    named: int  #: active ones with a name
    faces_waiting: int  #: faces without identity that no recluster has looked at
    retries: int  #: documents that are tried again later
    plan: int | None  #: number of the active plan
    enrichers: tuple[str, ...]
    schema: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why one document is not complete; `enricher` None: the image could not be read or the document not written."""

    id: Any
    source: Any
    state: str
    enricher: str | None
    type: str
    message: str
    attempts: int
    next_attempt_at: datetime | None


@dataclass(frozen=True, slots=True)
class Failed:
    """A document and the enrichers that have no answer for it."""

    id: Any
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """A document's source and the SHA-256 of the bytes that were read from it."""

    id: Any
    source: Any
    sha256: str


class Reports:
    """Reads the images collection as the configuration describes it."""

    def __init__(self, collections: Collections, source: str, filter: Mapping[str, Any]) -> None:
        """`source`: dotted path of the source field; `filter`: which documents are enriched at all."""
        self._collections = collections
        self._images = collections.images
        self._source = source
        self._filter = dict(filter)

    def _among(self, *conditions: Mapping[str, Any]) -> Document:
        return all_of(*conditions, {self._source: {"$ne": None}}, self._filter)

    async def overview(self) -> Overview:
        state = State(self._collections)
        stored = await state.plan()
        identities = self._collections.identities
        unfinished = await self.unfinished(None)
        new = await self._images.count_documents(self._among({f"{ENRICHMENT}.state": None}))
        return Overview(
            documents=await self._images.count_documents(self._among()),
            states=await self.count_states(None),
            unfinished=unfinished,
            new=new,
            stale=max(0, unfinished - new),
            without_source=await self._images.count_documents(all_of({self._source: None}, self._filter)),
            faces=await self._collections.faces.estimated_document_count(),
            identities=await identities.count_documents({"state": "active"}),
            named=await identities.count_documents({"state": "active", "name": {"$gt": ""}}),
            faces_waiting=await count_waiting(self._collections),
            retries=await self._images.count_documents(
                {f"{ENRICHMENT}.next_attempt_at": {"$gt": datetime(1970, 1, 2)}}
            ),
            plan=stored.number if stored else None,
            enrichers=stored.plan.names if stored else (),
            schema=await state.schema_version(),
        )

    async def unfinished(self, ids: Sequence[Any] | None) -> int:
        """How many documents, of those with `ids` or of all, were not looked at yet under the active plan."""
        chosen = [] if ids is None else [{"_id": {"$in": list(ids)}}]
        total = await self._images.count_documents(self._among(*chosen))
        stored = await State(self._collections).plan()
        if stored is None:
            return total
        return total - await self._images.count_documents(
            self._among(*chosen, {f"{ENRICHMENT}.plan": stored.plan.hash})
        )

    async def unanswered(self, token: Any, names: Sequence[str]) -> int:
        """How many documents that were asked for `names` with the request `token` have not answered it."""
        asked = {"$or": [{f"{ENRICHMENT}.requested.{name}": token} for name in names]}
        open_ = {
            "$or": [
                {f"{ENRICHMENT}.requested.{name}": token, f"{ENRICHMENTS}.{name}.run.request": {"$ne": token}}
                for name in names
            ]
        }
        return await self._images.count_documents({"$and": [asked, open_]})

    async def count_states(self, ids: Sequence[Any] | None) -> dict[str, int]:
        """How many documents, of those with `ids` or of all, are in each state."""
        chosen = [] if ids is None else [{"_id": {"$in": list(ids)}}]
        return {
            name: await self._images.count_documents(self._among(*chosen, {f"{ENRICHMENT}.state": name}))
            for name in STATES
        }

    async def count(self, query: Mapping[str, Any]) -> int:
        """How many documents `query` finds among those that are enriched."""
        return await self._images.count_documents(self._among(query))

    async def failed(self, names: Sequence[str], ids: Sequence[Any] | None) -> AsyncIterator[Failed]:
        """The documents, of those with `ids` or of all, for which enrichers of `names` failed; one that could not be
        read lacks them all."""
        query: Document = {f"{ENRICHMENT}.state": {"$in": list(TROUBLED)}}
        if ids is not None:
            query["_id"] = {"$in": list(ids)}
        projection = {f"{ENRICHMENT}.state": 1} | {f"{ENRICHMENTS}.{name}.run.state": 1 for name in names}
        async for document in self._images.find(query, projection):
            states = {name: read_path(document, f"{ENRICHMENTS}.{name}.run.state") for name in names}
            answered = [] if document[ENRICHMENT]["state"] == "unreadable" else ["done"]
            yield Failed(document["_id"], tuple(name for name in names if states[name] not in answered))

    async def read_hashes(self, query: Mapping[str, Any]) -> AsyncIterator[Read]:
        """The documents that `query` finds whose source was read, each with what was read."""
        stored = await State(self._collections).plan()
        names = stored.plan.names if stored else ()
        paths = [f"{ENRICHMENTS}.{name}.run.image_sha256" for name in names]
        projection = dict.fromkeys([self._source, *paths], 1)
        async for document in self._images.find(self._among(query), projection):
            hashes = [value for path in paths if (value := read_path(document, path))]
            if hashes:
                yield Read(document["_id"], read_path(document, self._source), hashes[0])

    async def find_id(self, candidates: Sequence[Any]) -> Any:
        """The `_id` among `candidates` that a document has; None where none has."""
        document = await self._images.find_one({"_id": {"$in": list(candidates)}}, {"_id": 1})
        return None if document is None else document["_id"]

    async def troubles(self, limit: int | None) -> AsyncIterator[Trouble]:
        """One entry for each reason why a document is not complete, and the documents that can hold no reason."""
        projection = {self._source: 1, ENRICHMENT: 1}
        stored = await State(self._collections).plan()
        projection |= {f"{ENRICHMENTS}.{name}.run": 1 for name in (stored.plan.names if stored else ())}
        left = limit
        cursor = self._images.find({f"{ENRICHMENT}.state": {"$in": list(TROUBLED)}}, projection)
        async for document in cursor.limit(limit or 0):
            for trouble in troubles_of(document, read_path(document, self._source)):
                yield trouble
            left = None if left is None else left - 1
        if left is None or left > 0:
            async for failure in self._collections.failures.find({}).limit(left or 0):
                error = failure.get("error") or {}
                yield Trouble(
                    failure["_id"],
                    failure.get("source_ref"),
                    "failed",
                    None,
                    str(error.get("type")),
                    str(error.get("message")),
                    1,
                    None,
                )

    async def add(self, sources: Sequence[str]) -> tuple[list[Any], int]:
        """Inserts one document for each source that no document has yet: their ids, and those of the ones there
        already; and how many are new."""
        ids: list[Any] = []
        new = 0
        for start in range(0, len(sources), CHUNK):
            chunk = list(dict.fromkeys(sources[start : start + CHUNK]))
            known = await self._ids_of(chunk)
            missing = [source for source in chunk if source not in known]
            if missing:
                operations = [
                    UpdateOne({self._source: source}, {"$setOnInsert": {self._source: source}}, upsert=True)
                    for source in missing
                ]
                result = await self._images.bulk_write(operations, ordered=False)
                new += result.upserted_count
                known |= await self._ids_of(missing)
            ids += [known[source] for source in chunk]
        return ids, new

    async def _ids_of(self, sources: Sequence[str]) -> dict[str, Any]:
        cursor = self._images.find({self._source: {"$in": list(sources)}}, {self._source: 1})
        return {read_path(document, self._source): document["_id"] async for document in cursor}


def troubles_of(document: Mapping[str, Any], source: Any) -> list[Trouble]:
    """The reasons that an image document gives for not being complete."""
    enrichment = document.get(ENRICHMENT) or {}
    state = str(enrichment.get("state"))
    if error := enrichment.get("error"):
        return [_trouble(document["_id"], source, state, None, error, enrichment)]
    runs = {name: answer.get("run") or {} for name, answer in (document.get(ENRICHMENTS) or {}).items()}
    return [
        _trouble(document["_id"], source, state, name, run.get("error") or {}, run)
        for name, run in runs.items()
        if run.get("state") == "failed"
    ]


def _trouble(
    id: Any, source: Any, state: str, enricher: str | None, error: Mapping[str, Any], entry: Mapping[str, Any]
) -> Trouble:
    source = shown_source(source)
    return Trouble(
        id,
        source,
        state,
        enricher,
        str(error.get("type", "")),
        str(error.get("message", "")),
        int(entry.get("attempts") or 1),
        entry.get("next_attempt_at"),
    )

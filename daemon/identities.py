"""Identities: reclustering faces into people, and showing people's names on the images."""

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray
from pymongo import InsertOne, UpdateOne

from daemon.calibration import Calibration, Calibrations
from daemon.clustering import Constraints, Faces, cluster, grow
from daemon.config import Identities as Settings
from daemon.exclusive import exclusive
from daemon.exemplars import Exemplars
from daemon.recluster import NO_CHANGES, Changes, Flow, Member, New, changes, flows, match_identities
from daemon.store import audit as audit_store
from daemon.store import faces as face_store
from daemon.store import identities as identity_store
from daemon.store import links as link_store
from daemon.store import recluster as state_store
from daemon.store.collections import Collections, Document
from daemon.store.faces import FORGOTTEN, IGNORED, NOT_A_FACE, batches
from daemon.store.identities import ACTIVE, HIDDEN, MERGED, Exemplar, Identity
from daemon.store.leases import LeaseStore
from daemon.store.links import CANNOT, MUST, Link
from daemon.store.vectors import stack, to_binary
from daemon.workers import apart

#: faces that stand for an identity when a new face is compared with it
EXEMPLARS = 8
#: all faces are clustered again when so many came since the last time, as a share of those that there were then, or
#: of this number where there were fewer
GROWTH, SMALL = 0.2, 50
#: moves of faces that a report lists
MOVES = 100
#: seconds between attempts to follow the identities' names after the stream broke
WATCH_PAUSE_S = 5.0
#: seconds before the stream is asked again that had nothing: the embedded server answers so at every write of anybody
QUIET_S = 0.2


@dataclass(frozen=True)
class ReclusterReport:
    """What a recluster did, or would do (`dry_run`)."""

    faces: int  #: faces looked at
    identities: int  #: identities with at least one face afterwards
    alone: int  #: faces that belong to no identity
    changes: Changes
    moves: list[Document]  #: who goes where, most faces first: `faces`, `from`, `to` (`null`: nobody)
    seconds: float
    full: bool  #: all faces were clustered, not only the new ones and what lies near them
    dry_run: bool

    def document(self) -> Document:
        """As plain types, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Loaded:
    """All faces of one embedding model, and what people decided on them."""

    model: str
    ids: list[ObjectId]
    images: list[Mapping[str, Any]]
    identities: list[ObjectId | None]
    pinned: list[bool]
    verdicts: list[str | None]
    detached: list[bool]
    new: NDArray[np.bool_]  #: (n,) no recluster has looked at it yet
    faces: Faces


async def active_model(collections: Collections) -> str | None:
    """The embedding model that most faces have, so that a change of model takes effect once half of them have it."""
    cursor = await collections.faces.aggregate(
        [
            {"$project": {"models": {"$map": {"input": {"$objectToArray": "$embeddings"}, "in": "$$this.k"}}}},
            {"$unwind": "$models"},
            {"$group": {"_id": "$models", "faces": {"$sum": 1}}},
        ]
    )
    counts = [(-document["faces"], document["_id"]) async for document in cursor]
    return str(min(counts)[1]) if counts else None


async def load(collections: Collections, model: str, query: Mapping[str, Any] | None = None) -> Loaded:
    """Every face that has a vector of `model` and may be clustered: not those that are no faces or are forgotten."""
    documents = [
        document
        async for document in face_store.of_model(collections, model, query)
        if document.get("verdict") not in (NOT_A_FACE, FORGOTTEN)
        and (document.get("identity") or document.get("verdict") != IGNORED)
        and (document.get("embeddings") or {}).get(model)
    ]
    return await asyncio.to_thread(arranged, documents, model)


def arranged(documents: list[Document], model: str) -> Loaded:
    """Documents of `faces` → arrays, in the order of their ids."""
    documents.sort(key=lambda document: document["_id"])
    dimensions = (len(documents[0]["embeddings"][model]) - 2) // 4 if documents else 0
    vectors = stack((document["embeddings"][model] for document in documents), max(dimensions, 1))
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    photos: dict[Any, int] = {}
    photo = [
        photos.setdefault(document.get("image_sha256") or repr(document["image"]), len(photos))
        for document in documents
    ]
    quality = [(document.get("quality") or {}).get("value") for document in documents]
    return Loaded(
        model=model,
        ids=[document["_id"] for document in documents],
        images=[document["image"] for document in documents],
        identities=[document.get("identity") for document in documents],
        pinned=[bool(document.get("identity")) and document["assigned"]["by"] == "user" for document in documents],
        verdicts=[document.get("verdict") for document in documents],
        detached=[bool(document.get("detached")) for document in documents],
        new=np.array([document.get("clustered_at") is None for document in documents], dtype=np.bool_),
        faces=Faces(
            vectors=vectors,
            quality=np.array([1.0 if value is None else value for value in quality], dtype=np.float32),
            photo=np.array(photo, dtype=np.int64),
        ),
    )


def constraints(loaded: Loaded, links: Sequence[Link], known: Mapping[ObjectId, Identity]) -> Constraints:
    """Links between faces → constraints between rows; faces that are not there are left out. The faces that a person
    put into one identity must be together."""
    row_of = {id: row for row, id in enumerate(loaded.ids)}

    def rows(ids: Sequence[ObjectId]) -> tuple[int, ...]:
        return tuple(row_of[id] for id in ids if id in row_of)

    pinned: dict[ObjectId, list[int]] = defaultdict(list)
    for row, identity in enumerate(loaded.identities):
        if loaded.pinned[row] and (living := resolve(identity, known)) is not None:
            pinned[living].append(row)
    musts = [rows(link.faces) for link in links if link.kind == MUST] + [tuple(group) for group in pinned.values()]
    return Constraints(
        must=tuple(group for group in musts if len(group) > 1),
        cannot=tuple((rows(link.faces), rows(link.others)) for link in links if link.kind == CANNOT and link.others),
    )


def resolve(identity: ObjectId | None, known: Mapping[ObjectId, Identity]) -> ObjectId | None:
    """The living identity that an id stands for: follows merges; None where it no longer exists."""
    seen: set[ObjectId] = set()
    while identity is not None and identity not in seen:
        seen.add(identity)
        entry = known.get(identity)
        if entry is None:
            return None
        if entry.state != MERGED:
            return identity
        identity = entry.merged_into
    return None


@dataclass(frozen=True)
class Plan:
    """What a recluster will write: the identity of each face by row, and who is new, kept and emptied."""

    owners: list[ObjectId | None]
    created: list[ObjectId]
    emptied: list[ObjectId]
    changes: Changes


def plan(
    loaded: Loaded,
    known: Mapping[ObjectId, Identity],
    links: Sequence[Link],
    labels: NDArray[np.int64],
    min_faces: int,
) -> Plan:
    """Clusters → what changes, as a value."""
    refused: dict[ObjectId, set[Hashable]] = defaultdict(set)
    for link in links:
        if link.kind == CANNOT and (identity := resolve(link.identity, known)) is not None:
            for face in link.faces:
                refused[face].add(identity)
    members = [
        Member(resolve(identity, known), pinned, frozenset(refused.get(id, ())))
        for id, identity, pinned in zip(loaded.ids, loaded.identities, loaded.pinned, strict=True)
    ]
    decided = {member.identity for member in members if member.pinned}
    kept = frozenset(
        entry.id
        for entry in known.values()
        if entry.name or entry.state == HIDDEN or entry.ignored or entry.id in decided
    )
    matched = match_identities(labels, members, kept, min_faces)
    created = [ObjectId() for _ in range(matched.created)]
    owners = [created[owner.number] if isinstance(owner, New) else owner for owner in matched.owners]
    living = {entry.id for entry in known.values() if entry.state != MERGED}
    emptied = living - {owner for owner in owners if isinstance(owner, ObjectId)}
    told = changes(loaded.identities, owners, len(created), len(emptied))
    return Plan(owners, created, sorted(emptied), told)  # type: ignore[arg-type]


async def recluster(
    collections: Collections,
    settings: Settings,
    *,
    dry_run: bool = False,
    full: bool = False,
    executor: Executor | None = None,
) -> ReclusterReport:
    """Clusters the faces, matches the clusters to the identities and, unless `dry_run`, writes what changed.

    Only faces that no recluster has looked at, and what lies near them, are clustered, until so many came that it is
    time to look at all again; `full` does so at once. Where nothing is new, nothing changes. The clustering runs in
    `executor`, by default a process of its own, and what else takes long in threads, so that the daemon goes on
    enriching and renews its leases. A recluster that another process is at is waited for. Raises CalibrationInvalid,
    and CalibrationMissing where nobody calibrated the embedding model: everything then stays as it is.
    """
    if dry_run:
        return await _recluster(collections, settings, True, full, executor)
    async with exclusive(LeaseStore(collections), "recluster"):
        return await _recluster(collections, settings, False, full, executor)


async def _recluster(
    collections: Collections, settings: Settings, dry_run: bool, full: bool, executor: Executor | None
) -> ReclusterReport:
    started = time.monotonic()
    model = await active_model(collections)
    known = await identity_store.load(collections)
    if model is None:
        if not dry_run:
            await clear_emptied(collections, sorted(known))
        return ReclusterReport(0, 0, 0, NO_CHANGES, [], time.monotonic() - started, False, dry_run)
    calibration = Calibrations.load(settings.calibration).of(model)
    loaded = await load(collections, model)
    links = await link_store.load(collections)
    limits = await asyncio.to_thread(constraints, loaded, links, known)
    before = await state_store.get(collections)
    full = full or due(before, loaded, calibration, settings)
    labels = old_labels(loaded, known)
    if full or loaded.new.any():
        work = partial(cluster, loaded.faces, calibration, limits)
        if not full:
            work = partial(grow, loaded.faces, labels, loaded.new, calibration, limits)
        if executor is None:
            labels = await apart("recluster", work)
        else:
            labels = await asyncio.get_running_loop().run_in_executor(executor, work)
    change = await asyncio.to_thread(plan, loaded, known, links, labels, settings.min_faces)
    if not dry_run:
        now = datetime.now(UTC)
        await apply(collections, loaded, known, change, now)
        await face_store.looked_at(collections, [loaded.ids[row] for row in np.flatnonzero(loaded.new)], now)
        await state_store.put(collections, after(before, loaded, calibration, settings, full))
    return ReclusterReport(
        faces=len(loaded.ids),
        identities=len({owner for owner in change.owners if owner is not None}),
        alone=sum(owner is None for owner in change.owners),
        changes=change.changes,
        moves=[told(flow, known, change) for flow in flows(loaded.identities, change.owners)[:MOVES]],
        seconds=round(time.monotonic() - started, 3),
        full=full,
        dry_run=dry_run,
    )


def told(flow: Flow, known: Mapping[ObjectId, Identity], change: Plan) -> Document:
    """A move of faces in words."""

    def end(id: Any) -> Document | None:
        if id is None:
            return None
        name = known[id].name if id in known else None
        return {"identity": id, "name": name, "new": id in change.created}

    return {"faces": flow.faces, "from": end(flow.source), "to": end(flow.target)}


def due(state: Document | None, loaded: Loaded, calibration: Calibration, settings: Settings) -> bool:
    """Whether all faces must be clustered: for the first time, with another model, calibration or setting, or because
    many came since the last time."""
    if state is None or state["basis"] != basis(loaded.model, calibration, settings):
        return True
    return int(state["added"]) + int(loaded.new.sum()) > GROWTH * max(int(state["faces"]), SMALL)


def after(state: Document | None, loaded: Loaded, calibration: Calibration, settings: Settings, full: bool) -> Document:
    """What is remembered of a recluster."""
    if full or state is None:
        return {"basis": basis(loaded.model, calibration, settings), "faces": len(loaded.ids), "added": 0}
    return {**state, "added": int(state["added"]) + int(loaded.new.sum())}


def basis(model: str, calibration: Calibration, settings: Settings) -> str:
    """What the clusters rest on beside the faces: with another one they are made anew."""
    return f"{model} {hash_of(calibration)} {settings.min_faces}"


def hash_of(calibration: Calibration) -> str:
    """16 hex digits that stand for a calibration's values."""
    return hashlib.sha256(repr(calibration).encode()).hexdigest()[:16]


def old_labels(loaded: Loaded, known: Mapping[ObjectId, Identity]) -> NDArray[np.int64]:
    """The identities of the faces as cluster numbers, -1 for faces without one."""
    numbers: dict[ObjectId, int] = {}
    living = [resolve(identity, known) for identity in loaded.identities]
    return np.array([-1 if id is None else numbers.setdefault(id, len(numbers)) for id in living], dtype=np.int64)


def exemplars_of(vectors: NDArray[np.float32], quality: NDArray[np.float32], count: int) -> list[int]:
    """Rows of (n, d) unit vectors that together lie nearest to all of them, best first: greedy facility location
    (Nemhauser, Wolsey, Fisher 1978) over the 256 best faces."""
    order = np.argsort(-quality, kind="stable")[:256]
    similar = vectors[order] @ vectors[order].T
    covered = np.full(len(order), -1.0, dtype=np.float32)
    chosen: list[int] = []
    while len(chosen) < min(count, len(order)):
        gain = np.maximum(similar, covered[None, :]).sum(axis=1)
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        chosen.append(best)
        covered = np.maximum(covered, similar[best])
    return [int(order[row]) for row in chosen]


async def apply(
    collections: Collections,
    loaded: Loaded,
    known: Mapping[ObjectId, Identity],
    change: Plan,
    now: datetime,
) -> None:
    """Writes a plan: new identities first, then faces (only those that nobody changed meanwhile), then what identities
    and images show of them."""
    for some in batches(change.created):
        await collections.identities.bulk_write([InsertOne(identity_store.new_document(id, now)) for id in some])

    rows: dict[ObjectId, list[int]] = defaultdict(list)
    for row, owner in enumerate(change.owners):
        if owner is not None:
            rows[owner].append(row)
    moved = [row for row, owner in enumerate(change.owners) if owner != loaded.identities[row]]
    centroids = await asyncio.to_thread(centroids_of, loaded, rows)
    await face_store.write(collections, await asyncio.to_thread(moves, loaded, known, change, moved, centroids, now))

    touched = {change.owners[row] for row in moved} | {loaded.identities[row] for row in moved}
    touched |= {change.owners[row] for row in np.flatnonzero(loaded.new)}
    await describe(collections, loaded, rows, centroids, known, touched, now)
    await clear_emptied(collections, change.emptied)
    await project(collections, face_ids=[loaded.ids[row] for row in moved])
    await project_names(collections)


def centroids_of(loaded: Loaded, rows: Mapping[ObjectId, Sequence[int]]) -> dict[ObjectId, NDArray[np.float32]]:
    """The mean of each identity's vectors, (d,)."""
    return {owner: loaded.faces.vectors[members].mean(axis=0) for owner, members in rows.items()}


def moves(
    loaded: Loaded,
    known: Mapping[ObjectId, Identity],
    change: Plan,
    moved: Sequence[int],
    centroids: Mapping[ObjectId, NDArray[np.float32]],
    now: datetime,
) -> list[UpdateOne]:
    """The writes of the faces in rows `moved`: only of those that nobody changed meanwhile."""
    operations = []
    for row in moved:
        owner = change.owners[row]
        distance = None if owner is None else cosine_distance(loaded.faces.vectors[row], centroids[owner])
        ignored = owner is not None and owner in known and known[owner].ignored
        fields = {
            **face_store.assignment(owner, "cluster", now, distance),
            **({"verdict": IGNORED} if ignored else {}),
        }
        unchanged = {"_id": loaded.ids[row], "identity": loaded.identities[row], "verdict": loaded.verdicts[row]}
        operations.append(UpdateOne(unchanged, {"$set": fields}))
    return operations


async def clear_emptied(collections: Collections, ids: Sequence[ObjectId]) -> None:
    """Deletes the identities without a face that no person ever named, hid or ignored; the others stay, with none."""
    await identity_store.count_faces(collections, ids)
    for some in batches(list(ids)):
        nobody = {"_id": {"$in": list(some)}, "face_count": 0, "name": None, "state": ACTIVE, "ignored": False}
        await collections.identities.delete_many(nobody)


def cosine_distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return round(1.0 - float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12)), 6)


async def describe(
    collections: Collections,
    loaded: Loaded,
    rows: Mapping[ObjectId, Sequence[int]],
    centroids: Mapping[ObjectId, NDArray[np.float32]],
    known: Mapping[ObjectId, Identity],
    touched: set[ObjectId | None],
    now: datetime,
) -> None:
    """Writes counts, cover, exemplars and centroid of the identities of `rows` that are `touched`, or whose faces are
    others than when they were last described."""
    operations = await asyncio.to_thread(descriptions, loaded, rows, centroids, known, touched, now)
    for some in batches(operations):
        await collections.identities.bulk_write(list(some), ordered=False)


def descriptions(
    loaded: Loaded,
    rows: Mapping[ObjectId, Sequence[int]],
    centroids: Mapping[ObjectId, NDArray[np.float32]],
    known: Mapping[ObjectId, Identity],
    touched: set[ObjectId | None],
    now: datetime,
) -> list[UpdateOne]:
    """The writes of `describe`."""
    operations = []
    for owner, members in rows.items():
        entry = known.get(owner)
        if entry is not None and owner not in touched and described(entry, loaded, members):
            continue
        own = np.array(members)
        best = exemplars_of(loaded.faces.vectors[own], loaded.faces.quality[own], EXEMPLARS)
        exemplars = [Exemplar(loaded.ids[own[row]], {loaded.model: loaded.faces.vectors[own[row]]}) for row in best]
        there = [row for row in members if not loaded.detached[row]]
        fields = {
            "face_count": len(there),
            "image_count": len({repr(loaded.images[row]) for row in there}),
            "cover_face": exemplars[0].face,
        }
        fields |= {
            "exemplars": identity_store.exemplars_document(exemplars),
            "centroid": {loaded.model: to_binary(centroids[owner])},
            "updated_at": now,
        }
        operations.append(UpdateOne({"_id": owner}, {"$set": fields}))
    return operations


def described(entry: Identity, loaded: Loaded, members: Sequence[int]) -> bool:
    """Whether an identity's counts and exemplars are those of these faces."""
    ids = {loaded.ids[row] for row in members}
    there = [row for row in members if not loaded.detached[row]]
    return (
        entry.face_count == len(there)
        and entry.image_count == len({repr(loaded.images[row]) for row in there})
        and bool(entry.exemplars)
        and all(e.face in ids and loaded.model in e.embeddings for e in entry.exemplars)
    )


async def refresh(collections: Collections, ids: Sequence[ObjectId]) -> None:
    """Brings counts, cover and exemplars of some identities up to date after a decision, and deletes those without a
    face that nobody named, hid or ignored."""
    now = datetime.now(UTC)
    known = await identity_store.by_ids(collections, ids)
    model = await active_model(collections)
    rows: dict[ObjectId, list[int]] = defaultdict(list)
    if model is not None:
        loaded = await load(collections, model, {"identity": {"$in": list(known)}})
        for row, identity in enumerate(loaded.identities):
            if identity is not None:
                rows[identity].append(row)
        centroids = centroids_of(loaded, rows)
        await describe(collections, loaded, rows, centroids, known, set(known), now)
    await clear_emptied(collections, [id for id in known if id not in rows])


async def project(
    collections: Collections, *, face_ids: Sequence[ObjectId] = (), identity_ids: Sequence[ObjectId] = ()
) -> int:
    """Writes identity and name into `enrichments.faces.items` of the images of these faces, or of all faces of these
    identities; returns how many images changed."""
    changed = 0
    queries = [{"_id": {"$in": list(some)}} for some in batches(list(face_ids))]
    queries += [{"identity": {"$in": list(some)}} for some in batches(list(identity_ids))]
    for query in queries:
        shown: list[Document] = []
        async for face in collections.faces.find({**query, "detached": False}, {"image": 1, "identity": 1}):
            shown.append(face)
            if len(shown) == face_store.BATCH:
                changed += await show(collections, shown)
                shown = []
        changed += await show(collections, shown)
    return changed


async def show(collections: Collections, faces: Sequence[Document]) -> int:
    """Writes identity and name of faces into their images."""
    if not faces:
        return 0
    names = await identity_store.names(collections, [face["identity"] for face in faces if face["identity"]])
    operations = [
        UpdateOne(
            {**face["image"], "enrichments.faces.items.face": face["_id"]},
            {
                "$set": {
                    "enrichments.faces.items.$[face].identity": face["identity"],
                    "enrichments.faces.items.$[face].name": names.get(face["identity"]),
                }
            },
            array_filters=[{"face.face": face["_id"]}],
        )
        for face in faces
    ]
    return (await collections.images.bulk_write(operations, ordered=False)).modified_count


async def project_names(collections: Collections) -> int:
    """Shows the names that changed since they were last shown, however they were changed; returns how many. A name that
    was set in the database itself is a decision as well, and noted as one."""
    stale: dict[ObjectId, str | None] = {}
    fields = dict.fromkeys(("name", "state", "decided_name", "shown_name", "updated_at"), 1)
    async for document in collections.identities.find({}, fields):
        if document.get("name") != document.get("decided_name"):
            await note_name(collections, document)
        name = document.get("name") if document.get("state") == ACTIVE else None
        if name != document.get("shown_name"):
            stale[document["_id"]] = name
    for id, name in stale.items():
        await project(collections, identity_ids=[id])
        await collections.identities.update_one({"_id": id}, {"$set": {"shown_name": name}})
    return len(stale)


async def note_name(collections: Collections, document: Document) -> None:
    """Notes as a decision the name of an identity that nobody decided on with enrichd: first the decision, then, unless
    the name changed again, that it is noted. Of a person who is forgotten meanwhile nothing stays."""
    id, name, before = document["_id"], document.get("name"), document.get("decided_name")
    await audit_store.note_name(collections, id, before, name, document.get("updated_at"))
    await collections.identities.update_one(
        {"_id": id, "name": name, "decided_name": before},
        {"$set": {"decided_name": name, "updated_at": datetime.now(UTC)}},
    )
    if await collections.identities.find_one({"_id": id}, {"_id": 1}) is None:
        await collections.audit.delete_many({"identities": id})


async def watch_identities(collections: Collections, exemplars: Exemplars) -> None:
    """Follows the identities until cancelled: a name given in mongosh or by any app is on the images within seconds,
    and who is deleted leaves the `exemplars`. After a break of the stream, and at start, what changed meanwhile is
    found by comparing."""
    from pymongo.errors import PyMongoError

    pipeline: list[Document] = [
        {
            "$match": {
                "$or": [
                    {"operationType": {"$in": ["replace", "delete"]}},
                    {"updateDescription.updatedFields.name": {"$exists": True}},
                    {"updateDescription.updatedFields.state": {"$exists": True}},
                    {"updateDescription.removedFields": "name"},
                ]
            }
        },
        {"$project": {"_id": 1, "operationType": 1, "documentKey": 1}},
    ]
    while True:
        try:
            async with await collections.identities.watch(pipeline) as stream:
                await exemplars.compare(collections)
                await project_names(collections)
                while stream.alive:
                    change = await stream.try_next()
                    if change is None:
                        await asyncio.sleep(QUIET_S)
                    elif change["operationType"] == "delete":
                        exemplars.forget([change["documentKey"]["_id"]])
                    else:
                        await project_names(collections)
        except PyMongoError:
            await asyncio.sleep(WATCH_PAUSE_S)

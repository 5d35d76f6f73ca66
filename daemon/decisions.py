"""What people decide about identities and faces: kept for ever, obeyed by every recluster, and reversible."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne

from daemon.identities import project, project_names, refresh
from daemon.store import audit as audit_store
from daemon.store import faces as face_store
from daemon.store import identities as identity_store
from daemon.store import links as link_store
from daemon.store.collections import Collections, Document
from daemon.store.faces import FORGOTTEN, IGNORED, NOT_A_FACE, StoredFace
from daemon.store.identities import ACTIVE, HIDDEN, MERGED, Identity
from daemon.store.links import CANNOT, MUST
from enrichers.errors import EnrichdError


class IdentityUnknown(EnrichdError):
    """There is no identity of that id or name."""


class FaceUnknown(EnrichdError):
    """There is no face of that id."""


class DecisionInvalid(EnrichdError):
    """That cannot be decided as things are."""


class DecisionUnknown(EnrichdError):
    """There is no decision of that id; `enrichd identities history` lists them."""


@dataclass
class Decision:
    """A decision being made: what it changes, before and after, so that it can be carried out, told and undone."""

    action: str
    identities: list[ObjectId]
    faces: list[Document] = field(default_factory=list)
    identity_changes: list[Document] = field(default_factory=list)
    links: list[tuple[str, list[ObjectId], list[ObjectId], ObjectId | None]] = field(default_factory=list)
    voided: list[ObjectId] = field(default_factory=list)
    created: list[ObjectId] = field(default_factory=list)

    def face(self, face: StoredFace, identity: ObjectId | None, verdict: str | None, now: datetime) -> None:
        """`face` now belongs to `identity` (or to nobody), by the word of a person."""
        assigned = None if identity is None else {"by": "user", "at": now, "distance": None}
        before = {"identity": face.identity, "assigned": face.assigned, "verdict": face.verdict}
        self.faces.append(
            {
                "face": face.id,
                "before": before,
                "after": {"identity": identity, "assigned": assigned, "verdict": verdict},
            }
        )

    def identity(self, identity: Identity, **after: Any) -> None:
        """Fields of an identity take new values."""
        whole = {key: getattr(identity, key) for key in ("name", "state", "merged_into", "ignored")}
        self.identity_changes.append(
            {"identity": identity.id, "before": {key: whole[key] for key in after}, "after": after}
        )


async def carry_out(collections: Collections, decision: Decision, now: datetime) -> ObjectId:
    """Writes a decision: first what it is, then what follows of it; returns the id of its audit entry."""
    entry = audit_store.entry(
        decision.action,
        now,
        decision.identities,
        faces=decision.faces,
        identity_changes=decision.identity_changes,
        identities_created=decision.created,
        links_voided=decision.voided,
    )
    made: list[ObjectId] = []
    for id in decision.created:
        await collections.identities.insert_one(identity_store.new_document(id, now))
    for kind, faces, others, identity in decision.links:
        made += await link_store.insert(collections, entry["_id"], now, kind, faces, others, identity)
    await audit_store.insert(collections, {**entry, "links_made": made})
    await link_store.set_void(collections, decision.voided, True)
    await set_identities(
        collections, [(change["identity"], change["after"]) for change in decision.identity_changes], now
    )
    await set_faces(collections, [(change["face"], {}, change["after"]) for change in decision.faces])
    await show(
        collections, decision.identities + touched(decision.faces), [change["face"] for change in decision.faces]
    )
    return ObjectId(entry["_id"])


def touched(faces: Sequence[Mapping[str, Any]]) -> list[ObjectId]:
    """The identities that faces come from or go to."""
    found = {change[side]["identity"] for change in faces for side in ("before", "after")}
    return sorted(id for id in found if id is not None)


async def set_identities(
    collections: Collections, changes: Sequence[tuple[ObjectId, Mapping[str, Any]]], now: datetime
) -> None:
    """Sets fields of identities."""
    for id, fields in changes:
        await collections.identities.update_one(
            {"_id": id}, {"$set": {**identity_store.decided(fields), "updated_at": now}}
        )


async def set_faces(
    collections: Collections, changes: Sequence[tuple[ObjectId, Mapping[str, Any], Mapping[str, Any]]]
) -> None:
    """Sets fields of faces that still are as the second says. The next recluster looks at them again."""
    await face_store.write(
        collections,
        [
            UpdateOne({"_id": id, **condition}, {"$set": {**fields, "decided": True, "clustered_at": None}})
            for id, condition, fields in changes
        ],
    )


async def show(collections: Collections, identities: Sequence[ObjectId], faces: Sequence[ObjectId]) -> None:
    """Brings identities and images up to date after a decision."""
    await refresh(collections, sorted(set(identities)))
    await project(collections, face_ids=faces)
    await project_names(collections)


async def find_identity(collections: Collections, text: str) -> Identity:
    """The identity of an id or of a name that only one has, written so or else in any case. Raises IdentityUnknown,
    DecisionInvalid."""
    query: dict[str, Any] = {"_id": ObjectId(text)} if ObjectId.is_valid(text) else {"name": text}
    found = [entry for entry in (await identity_store.load(collections, query)).values() if entry.state != MERGED]
    if not found:
        living = {"name": {"$gt": ""}, "state": {"$ne": MERGED}}
        named = [entry for entry in (await identity_store.load(collections, living)).values() if entry.name]
        found = [entry for entry in named if entry.name and entry.name.casefold() == text.strip().casefold()]
        if not found:
            by_lower = {entry.name.casefold(): entry.name for entry in named if entry.name}
            near = get_close_matches(text.strip().casefold(), by_lower, n=1)
            hint = f" Did you mean {by_lower[near[0]]!r}?" if near else ""
            raise IdentityUnknown(
                f"There is no identity {text!r}; `enrichd identities list` shows those there are.{hint}"
            )
    if len(found) > 1:
        ids = ", ".join(str(entry.id) for entry in found)
        raise DecisionInvalid(f"Several identities are called {text!r}: {ids}. Give the id, or merge them.")
    return found[0]


async def find_faces(collections: Collections, ids: Sequence[ObjectId]) -> list[StoredFace]:
    """Faces by id. Raises FaceUnknown."""
    found = await face_store.by_ids(collections, ids)
    if missing := [str(id) for id in ids if id not in found]:
        raise FaceUnknown(f"There is no face {', '.join(missing)}.")
    return [found[id] for id in dict.fromkeys(ids)]


async def name(collections: Collections, identity: Identity, name: str | None) -> ObjectId:
    """Gives an identity a name, or takes it away."""
    decision = Decision("name", [identity.id])
    decision.identity(identity, name=name.strip() or None if name else None)
    return await carry_out(collections, decision, datetime.now(UTC))


async def merge(collections: Collections, into: Identity, others: Sequence[Identity]) -> ObjectId:
    """`others` are the same person as `into`: all their faces belong together from now on. Raises DecisionInvalid."""
    others = [other for other in others if other.id != into.id]
    if not others:
        raise DecisionInvalid("Merging takes two identities.")
    now = datetime.now(UTC)
    decision = Decision("merge", [into.id, *(other.id for other in others)])
    own = await face_store.of_identities(collections, [into.id])
    moved = await face_store.of_identities(collections, [other.id for other in others])
    together = [face.id for face in (*own, *moved)]
    await release(collections, decision, together, together, (CANNOT,))
    for face in moved:
        verdict = IGNORED if into.ignored else None if face.verdict == IGNORED else face.verdict
        decision.face(face, into.id, verdict, now)
    for other in others:
        decision.identity(other, state=MERGED, merged_into=into.id)
    if into.name is None and (name := next((other.name for other in others if other.name), None)):
        decision.identity(into, name=name)
    if len(together) > 1:
        decision.links.append((MUST, together, [], None))
    return await carry_out(collections, decision, now)


async def split(
    collections: Collections, identity: Identity, faces: Sequence[StoredFace], name: str | None = None
) -> tuple[ObjectId, ObjectId]:
    """These faces of an identity are another person: they become an identity of their own. Returns its id and that of
    the audit entry. Raises DecisionInvalid."""
    if any(face.identity != identity.id for face in faces) or not faces:
        raise DecisionInvalid(f"Some of these faces do not belong to {identity.name or identity.id}.")
    now = datetime.now(UTC)
    chosen = {face.id for face in faces}
    rest = [face.id for face in await face_store.of_identities(collections, [identity.id]) if face.id not in chosen]
    if not rest:
        raise DecisionInvalid("All faces would go: rename the identity instead.")
    new = ObjectId()
    decision = Decision("split", [identity.id, new], created=[new])
    await release(collections, decision, sorted(chosen), rest, (MUST,))
    for face in faces:
        decision.face(face, new, face.verdict, now)
    decision.links.append((CANNOT, sorted(chosen), rest, None))
    if name:
        decision.identity_changes.append({"identity": new, "before": {"name": None}, "after": {"name": name}})
    return new, await carry_out(collections, decision, now)


async def not_this_person(collections: Collections, faces: Sequence[StoredFace]) -> ObjectId:
    """These faces are not who they are said to be. Raises DecisionInvalid where one belongs to nobody."""
    if any(face.identity is None for face in faces):
        raise DecisionInvalid("A face that belongs to no identity cannot be told apart from one.")
    now = datetime.now(UTC)
    decision = Decision("not this person", sorted({face.identity for face in faces if face.identity}))
    for identity in decision.identities:
        wrong = [face for face in faces if face.identity == identity]
        ids = [face.id for face in wrong]
        rest = [f.id for f in await face_store.of_identities(collections, [identity]) if f.id not in set(ids)]
        await release(collections, decision, ids, rest, (MUST,))
        decision.links.append((CANNOT, ids, rest, identity))
        for face in wrong:
            decision.face(face, None, None if face.verdict == IGNORED else face.verdict, now)
    return await carry_out(collections, decision, now)


async def not_a_face(collections: Collections, faces: Sequence[StoredFace]) -> ObjectId:
    """These are no faces: they belong to nobody and are left out of everything."""
    now = datetime.now(UTC)
    decision = Decision(
        "not a face", touched([{"before": {"identity": f.identity}, "after": {"identity": None}} for f in faces])
    )
    for face in faces:
        decision.face(face, None, NOT_A_FACE, now)
    return await carry_out(collections, decision, now)


async def ignore(collections: Collections, identity: Identity) -> ObjectId:
    """A stranger whom nobody wants to see: the identity goes on to collect its faces, out of sight."""
    now = datetime.now(UTC)
    decision = Decision("ignore", [identity.id])
    decision.identity(identity, state=HIDDEN, ignored=True)
    for face in await face_store.of_identities(collections, [identity.id]):
        decision.face(face, identity.id, IGNORED, now)
        decision.faces[-1]["after"]["assigned"] = face.assigned
    return await carry_out(collections, decision, now)


async def ignore_faces(collections: Collections, faces: Sequence[StoredFace]) -> ObjectId:
    """Faces of strangers that belong to no identity: they are left out of everything."""
    if any(face.identity is not None for face in faces):
        raise DecisionInvalid("Such a face belongs to an identity: ignore that.")
    now = datetime.now(UTC)
    decision = Decision("ignore", [])
    for face in faces:
        decision.face(face, None, IGNORED, now)
    return await carry_out(collections, decision, now)


async def hide(collections: Collections, identity: Identity, hidden: bool = True) -> ObjectId:
    """Takes an identity out of sight, or back into it."""
    decision = Decision("hide" if hidden else "show", [identity.id])
    decision.identity(identity, state=HIDDEN if hidden else ACTIVE)
    return await carry_out(collections, decision, datetime.now(UTC))


async def release(
    collections: Collections,
    decision: Decision,
    ones: Sequence[ObjectId],
    others: Sequence[ObjectId],
    kinds: tuple[str, ...],
) -> None:
    """Takes out of force what earlier decisions say to the contrary between `ones` and `others`: the latest counts.
    What they say of other faces stays."""
    first, second = set(ones), set(others)
    for link in await link_store.of_faces(collections, ones):
        if link.kind not in kinds:
            continue
        members = set(link.faces)
        if link.kind == MUST and members & first and members & second:
            decision.voided.append(link.id)
            for part in (members & first, members - first):
                if len(part) > 1:
                    decision.links.append((MUST, sorted(part), [], None))
        elif link.kind == CANNOT and (members & first and set(link.others) & second):
            decision.voided.append(link.id)
            for side, against in ((members - first, set(link.others)), (members & first, set(link.others) - second)):
                if side and against:
                    decision.links.append((CANNOT, sorted(side), sorted(against), None))
            if link.identity is not None and link.identity not in decision.identities and members & first:
                decision.links.append((CANNOT, sorted(members), [], link.identity))


async def undo(collections: Collections, id: ObjectId) -> Document:
    """Takes a decision back: what it changed and nobody changed since is as it was before. Raises DecisionUnknown,
    DecisionInvalid."""
    entry = await audit_store.get(collections, id)
    if entry is None:
        raise DecisionUnknown
    if entry["undone_at"] is not None or entry["action"] == "forget":
        raise DecisionInvalid("That is undone already." if entry["undone_at"] else "Forgetting cannot be undone.")
    now = datetime.now(UTC)
    await link_store.set_void(collections, entry["links_made"], True)
    await link_store.set_void(collections, entry["links_voided"], False)
    for change in entry["identity_changes"]:
        as_left = {"_id": change["identity"], **change["after"]}
        before = identity_store.decided(change["before"])
        await collections.identities.update_one(as_left, {"$set": {**before, "updated_at": now}})
    await set_faces(
        collections,
        [
            (change["face"], {key: change["after"][key] for key in ("identity", "verdict")}, change["before"])
            for change in entry["faces"]
        ],
    )
    await collections.audit.update_one({"_id": id}, {"$set": {"undone_at": now}})
    faces = [change["face"] for change in entry["faces"]]
    await show(collections, [*entry["identities"], *touched(entry["faces"])], faces)
    return {**entry, "undone_at": now}


@dataclass(frozen=True)
class All:
    """Everything that belongs to a person: the identity with those merged into it, and their faces."""

    identities: list[ObjectId]
    faces: list[ObjectId]


async def all_of(collections: Collections, identity: Identity) -> All:
    """What would be forgotten with an identity."""
    merged = [e.id for e in (await identity_store.load(collections, {"merged_into": identity.id})).values()]
    identities = [identity.id, *merged]
    return All(identities, [face.id for face in await face_store.of_identities(collections, identities)])


async def forget(collections: Collections, identity: Identity) -> int:
    """Erases a person for good: vectors, pictures, links, decisions and what was learned from them. The faces' places
    on their images remain without anything of the person, so that the same photos do not bring it back. What is
    noted is that it happened, not who. Returns how many faces there were."""
    now = datetime.now(UTC)
    everything = await all_of(collections, identity)
    gone, ids = everything.identities, everything.faces
    for some in face_store.batches(ids):
        await collections.links.update_many({"faces": {"$in": list(some)}}, {"$pull": {"faces": {"$in": list(some)}}})
        await collections.links.update_many({"others": {"$in": list(some)}}, {"$pull": {"others": {"$in": list(some)}}})
        await collections.audit.update_many(
            {"faces.face": {"$in": list(some)}}, {"$pull": {"faces": {"face": {"$in": list(some)}}}}
        )
        blank = {"verdict": FORGOTTEN, "decided": True, "identity": None, "assigned": None, "embeddings": {}}
        traces = await face_store.traces(collections, some)
        await collections.faces.update_many(
            {"_id": {"$in": list(some)}}, {"$set": blank, **({"$unset": traces} if traces else {})}
        )
    await collections.links.delete_many({"faces": {"$size": 0}})
    await collections.links.delete_many({"identity": {"$in": gone}})
    await collections.audit.delete_many({"identities": {"$in": gone}})
    await project(collections, face_ids=ids)
    await collections.state.delete_many({"kind": "recognition", "identities": {"$in": gone}})
    await collections.identities.delete_many({"_id": {"$in": gone}})  # last: at this the daemons forget as well
    await collections.audit.delete_many({"identities": {"$in": gone}})  # what a daemon noted meanwhile
    await audit_store.insert(collections, audit_store.entry("forget", now, [], count=len(ids)))
    return len(ids)

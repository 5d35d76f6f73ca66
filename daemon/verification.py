"""Checks the promises over the whole database: nothing lost, nothing stale, nothing twice, nothing orphaned."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bson import encode

from daemon.config import Config
from daemon.plan import Plan, Reason, decide
from daemon.plural import counted
from daemon.store import verification as stored
from daemon.store.collections import Collections
from daemon.store.state import State
from daemon.store.verification import IdentityCounts, ImageWithFaces


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise: what kind, on which document, and how."""

    kind: str
    id: Any
    message: str


@dataclass(slots=True)
class Verified:
    """What was looked at, and what is wrong with it."""

    documents: int = 0  #: image documents that are enriched
    faces: int = 0  #: those that are not detached
    identities: int = 0
    violations: list[Violation] = field(default_factory=list)


async def verify(config: Config, collections: Collections) -> Verified:
    """Looks at everything, while the collection is at rest; work that is under way shows as `lost` or `stale`."""
    active = await State(collections).plan()
    plan = active.plan if active else Plan(())
    now = datetime.now(UTC)
    verified = Verified()
    wrong = verified.violations
    explained = await stored.set_aside(collections)
    async for image in stored.images(collections, config.images.source, config.images.filter, plan):
        verified.documents += 1
        known = encode({"_id": image.image.key["_id"]}) in explained
        wrong += _of_faces(image, image.image.key["_id"]) if known else of_image(image, plan, now)
    async for face, has_image in stored.faces(collections):
        verified.faces += 1
        if not has_image:
            wrong.append(Violation("orphaned face", face, "its image is gone"))
    counts, missing = await stored.identity_counts(collections)
    verified.identities = len(counts)
    wrong += of_identities(counts)
    wrong += [Violation("orphaned face", face, f"its identity {identity} is gone") for face, identity in missing]
    return verified


def of_image(entry: ImageWithFaces, plan: Plan, now: datetime) -> Iterator[Violation]:
    """What is wrong with one image and its faces."""
    image = entry.image
    id, state = image.key["_id"], image.enrichment.get("state")
    if state is None:
        yield Violation("lost", id, "nobody looked at it")
        return
    reasons = {name: why for name, why in decide(image, plan, now).missing.items() if why is not Reason.RETRY}
    if reasons:
        yield Violation("stale", id, ", ".join(f"{name} ({why})" for name, why in reasons.items()))
    yield from _unexplained(image.enrichment, image.enrichments, id, plan)
    hashes = {
        run.get("image_sha256") for step in plan.steps if (run := image.run(step.name)) and run.get("state") == "done"
    }
    if len(hashes) > 1:
        yield Violation("mixed", id, "its answers are about different bytes of the image")
    yield from _of_faces(entry, id)


def _unexplained(enrichment: Any, enrichments: Any, id: Any, plan: Plan) -> Iterator[Violation]:
    runs = {step.name: (enrichments.get(step.name) or {}).get("run") or {} for step in plan.steps}
    failed = [name for name, run in runs.items() if run.get("state") == "failed"]
    silent = [name for name in failed if not (runs[name].get("error") or {}).get("message")]
    state = enrichment["state"]
    if silent or (state in ("partial", "failed", "unreadable") and not failed and not enrichment.get("error")):
        yield Violation("unexplained", id, f"{state} without a reason {', '.join(silent)}".rstrip())
    if state == "complete" and failed:
        yield Violation("unexplained", id, f"complete, yet {', '.join(failed)} failed")


def _of_faces(entry: ImageWithFaces, id: Any) -> Iterator[Violation]:
    faces = {face["_id"]: face for face in entry.stored if not face.get("detached")}
    shown = [item["face"] for item in entry.shown]
    if len(set(shown)) < len(shown):
        yield Violation("duplicated face", id, "its answer lists a face twice")
    boxes = [(tuple(face["box"]), face.get("image_sha256")) for face in faces.values()]
    if len(set(boxes)) < len(boxes):
        yield Violation("duplicated face", id, "two of its faces are at the same place")
    for item in entry.shown:
        face = faces.get(item["face"])
        if face is None:
            yield Violation("lost face", id, f"its answer lists the face {item['face']}, which is gone")
        elif face.get("identity") != item.get("identity"):
            yield Violation("stale face", id, f"the face {item['face']} belongs to {face.get('identity')} by now")
    for face in faces.keys() - set(shown):
        yield Violation("orphaned face", face, f"the answer of its image {id} does not list it")


def of_identities(counts: list[IdentityCounts]) -> Iterator[Violation]:
    """What is wrong with the identities' own counts."""
    for entry in counts:
        if entry.stated != entry.counted:
            faces, images = entry.stated
            stated = f"{counted(faces, 'face')} in {counted(images, 'image')}"
            message = f"states {stated}, has {entry.counted[0]} in {entry.counted[1]}"
            yield Violation("wrong count", entry.id, message)
        if not entry.kept and entry.counted[0] == 0:
            yield Violation("empty identity", entry.id, "no face belongs to it, and no person named it")

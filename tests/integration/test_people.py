"""Faces become identities in a real database."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from bson import ObjectId

from daemon import decisions
from daemon.calibration import CalibrationMissing, Calibrations, as_toml
from daemon.config import Identities
from daemon.exemplars import Exemplars
from daemon.faces import delete_faces, write_faces
from daemon.identities import recluster, watch_identities
from daemon.store import audit
from daemon.store import identities as identity_store
from daemon.store.collections import Collections
from daemon.tally import Tally
from daemon.training import train_recognizer
from tests.people import MODEL, NOW, face, image, insert, vector

pytestmark = pytest.mark.integration


@pytest.fixture
def executor() -> Iterator[Executor]:
    """Clusters in a thread: a process takes seconds to start."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def snapshot(collections: Collections) -> list[object]:
    return [
        sorted([repr(document) async for document in collection.find()])
        for collection in (collections.faces, collections.identities, collections.images, collections.links)
    ]


async def test_writing_twice_changes_nothing(collections: Collections) -> None:
    batch = [image(1, face(1, 1), face(2, 1, (100, 10, 40, 40))), image(2, face(1, 2))]
    first = await write_faces(collections, batch, NOW)
    before = await snapshot(collections)
    assert await write_faces(collections, batch, NOW) == first
    assert await snapshot(collections) == before
    assert len({entry["face"] for items in first for entry in items}) == 3


async def test_faces_are_found_again_by_overlap_whatever_their_order(collections: Collections) -> None:
    left, right = face(1, 1), face(2, 1, (100, 10, 40, 40))
    [[a, b]] = await write_faces(collections, [image(1, left, right)], NOW)
    moved = face(2, 1, (103, 12, 41, 38))
    [[c, d, e]] = await write_faces(collections, [image(1, moved, left, face(3, 1, (200, 10, 40, 40)))], NOW)
    assert (c["face"], d["face"]) == (b["face"], a["face"])
    assert e["face"] not in (a["face"], b["face"])


async def test_changed_bytes_are_matched_by_embedding(collections: Collections) -> None:
    [[a, b]] = await write_faces(collections, [image(1, face(1, 1), face(2, 1, (100, 10, 40, 40)))], NOW)
    mirrored = image(1, face(2, 5, (10, 10, 40, 40)), face(1, 5, (100, 10, 40, 40)), sha="other")
    [[c, d]] = await write_faces(collections, [mirrored], NOW)
    assert (c["face"], d["face"]) == (b["face"], a["face"])
    other = image(1, face(8, 1), face(9, 1, (100, 10, 40, 40)), sha="another photo")
    [[e, f]] = await write_faces(collections, [other], NOW)
    assert not {e["face"], f["face"]} & {a["face"], b["face"]}
    assert await collections.faces.count_documents({}) == 2


async def test_a_face_not_found_again_goes_unless_a_person_decided_on_it(collections: Collections) -> None:
    [[_, b]] = await write_faces(collections, [image(1, face(1, 1), face(2, 1, (100, 10, 40, 40)))], NOW)
    await collections.faces.update_one({"_id": b["face"]}, {"$set": {"verdict": "not_a_face"}})
    await write_faces(collections, [image(1)], NOW)
    [left] = [document async for document in collections.faces.find()]
    assert (left["_id"], left["detached"]) == (b["face"], True)
    [[again]] = await write_faces(collections, [image(1, face(2, 1, (100, 10, 40, 40)))], NOW)
    assert again["face"] == b["face"]
    assert (await collections.faces.find_one({"_id": b["face"]}))["verdict"] == "not_a_face"  # type: ignore[index]


async def test_faces_of_a_deleted_image_go(collections: Collections) -> None:
    await write_faces(collections, [image(1, face(1, 1)), image(2, face(1, 2))], NOW)
    assert await delete_faces(collections, [{"_id": 1}]) == 1
    assert await delete_faces(collections, [{"_id": 1}]) == 0
    assert await collections.faces.count_documents({}) == 1


async def test_recluster_finds_people_and_then_changes_nothing(collections: Collections, executor: Executor) -> None:
    await insert(collections, *[image(who * 10 + shot, face(who, shot)) for who in range(3) for shot in range(4)])
    report = await recluster(collections, Identities(), dry_run=True, executor=executor)
    assert (report.identities, report.changes.created) == (3, 3)
    assert await collections.identities.count_documents({}) == 0  # a dry run writes nothing
    await recluster(collections, Identities(), executor=executor)
    people = [document async for document in collections.identities.find()]
    assert sorted(document["face_count"] for document in people) == [4, 4, 4]
    shown = {
        document["_id"]: document["enrichments"]["faces"]["items"][0]["identity"]
        async for document in collections.images.find()
    }
    assert all(len({shown[who * 10 + shot] for shot in range(4)}) == 1 for who in range(3))
    before = await snapshot(collections)
    await recluster(collections, Identities(), executor=executor)
    assert await snapshot(collections) == before


async def test_a_new_face_of_a_known_person_is_assigned_at_once(collections: Collections, executor: Executor) -> None:
    await insert(collections, *[image(shot, face(1, shot)) for shot in range(5)])
    await recluster(collections, Identities(), executor=executor)
    await collections.identities.update_one({}, {"$set": {"name": "Ada"}})
    [[known], [stranger]] = await write_faces(collections, [image(50, face(1, 50)), image(51, face(2, 51))], NOW)
    assert known["name"] == "Ada"
    assert (stranger["identity"], stranger["name"]) == (None, None)


async def test_a_name_given_in_the_database_appears_on_the_images(collections: Collections, executor: Executor) -> None:
    await insert(collections, *[image(shot, face(1, shot)) for shot in range(3)])
    await recluster(collections, Identities(), executor=executor)
    watching = asyncio.create_task(watch_identities(collections, Exemplars()))
    try:
        await asyncio.sleep(1)
        await collections.identities.update_one({}, {"$set": {"name": "Ada"}})
        for _ in range(50):
            if await collections.images.count_documents({"enrichments.faces.items.name": "Ada"}) == 3:
                break
            await asyncio.sleep(0.1)
        assert await collections.images.count_documents({"enrichments.faces.items.name": "Ada"}) == 3
    finally:
        watching.cancel()


async def test_a_name_given_in_the_database_is_a_decision_noted_once(
    collections: Collections, executor: Executor
) -> None:
    await insert(collections, *[image(shot, face(1, shot)) for shot in range(3)])
    await recluster(collections, Identities(), executor=executor)
    daemons = [asyncio.create_task(watch_identities(collections, Exemplars())) for _ in range(2)]
    names: list[str | None] = ["Ada", "Grace", "Ada", "Grace"]  # the same change twice is two decisions

    async def noted(name: str | None) -> bool:
        return await collections.identities.count_documents({"name": name, "decided_name": name}) == 1

    try:
        for name in names:
            await collections.identities.update_one({}, {"$set": {"name": name}})
            await eventually(lambda name=name: noted(name))
        [identity] = (await identity_store.load(collections)).values()
        await decisions.name(collections, identity, "Mary")  # noted by the command itself
        await asyncio.sleep(1)  # both daemons see that as well
        entries = (await audit.history(collections, identity.id))[::-1]
        changes = [(entry["action"], *entry["identity_changes"]) for entry in entries]
        steps = zip([None, *names], [*names, "Mary"], strict=True)
        assert changes == [
            ("name", {"identity": identity.id, "before": {"name": old}, "after": {"name": new}}) for old, new in steps
        ]
        for entry in entries[:-3:-1]:
            await decisions.undo(collections, entry["_id"])
        await eventually(lambda: noted("Ada"))
        assert len(await audit.history(collections, identity.id)) == len(entries), "taking back is no new decision"
    finally:
        for daemon in daemons:
            daemon.cancel()


async def test_a_named_identity_outlives_its_faces(collections: Collections, executor: Executor) -> None:
    await insert(collections, *[image(shot, face(1, shot)) for shot in range(3)])
    await recluster(collections, Identities(), executor=executor)
    await collections.identities.update_one({}, {"$set": {"name": "Ada"}})
    await delete_faces(collections, [{"_id": shot} for shot in range(3)])
    await recluster(collections, Identities(), executor=executor)
    [document] = [document async for document in collections.identities.find()]
    assert (document["name"], document["face_count"]) == ("Ada", 0)


def test_ids_are_object_ids() -> None:
    from daemon.store.faces import face_id

    assert face_id({"_id": 1}, "a", 0) == face_id({"_id": 1}, "a", 0) != face_id({"_id": 1}, "a", 1)
    assert isinstance(face_id({"_id": 1}, "a", 0), ObjectId)


async def test_a_trained_recognizer_assigns_or_suggests(collections: Collections, executor: Executor) -> None:
    await insert(collections, *[image(who * 100 + shot, face(who, shot)) for who in range(10) for shot in range(12)])
    await recluster(collections, Identities(), executor=executor)
    async for document in collections.identities.find():
        name = f"person {document['cover_face']}"
        await collections.identities.update_one({"_id": document["_id"]}, {"$set": {"name": name}})
    trained = await train_recognizer(collections, min_images=10)
    assert (trained.labels, trained.judged.accuracy) == (10, 1.0)
    blurred = vector(3, 900, spread=0.55)  # too far from every exemplar to be assigned by them
    batch = [image(5000, face(3, 900, embeddings={MODEL: blurred})), image(5001, face(77, 1))]
    [[known], [stranger]] = await write_faces(collections, batch, NOW)
    stored = await collections.faces.find_one({"_id": known["face"]})
    assert stored is not None
    told = stored["assigned"] or stored["suggested"]
    assert told["by"] == "classifier"
    assert (stranger["identity"], stranger["name"]) == (None, None)


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Waits until `check` holds."""
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.05)


async def test_a_forgotten_person_leaves_the_memory_of_a_running_daemon(
    collections: Collections, executor: Executor
) -> None:
    kept = Exemplars()
    shots = [image(who * 100 + shot, face(who, shot)) for who in range(3) for shot in range(12)]
    await insert(collections, *shots)
    await recluster(collections, Identities(), executor=executor)
    async for document in collections.identities.find():
        await collections.identities.update_one({"_id": document["_id"]}, {"$set": {"name": str(document["_id"])}})
    await train_recognizer(collections, min_images=10)
    await kept.refresh(collections)
    watching = asyncio.create_task(watch_identities(collections, kept))
    try:
        await asyncio.sleep(1)
        vectors = {MODEL: vector(0, 50)}
        known = kept.nearest(vectors)
        assert known is not None and known.sure and kept.recognized(vectors) is not None
        await decisions.forget(collections, await decisions.find_identity(collections, str(known.identity)))

        async def gone() -> bool:
            nearest = kept.nearest(vectors)
            return nearest is not None and nearest.identity != known.identity and kept.recognized(vectors) is None

        await eventually(gone)  # without anything being written
    finally:
        watching.cancel()


async def test_who_was_deleted_while_nobody_watched_leaves_the_memory(
    collections: Collections, executor: Executor
) -> None:
    kept = Exemplars()
    await insert(collections, *[image(shot, face(1, shot)) for shot in range(4)])
    await recluster(collections, Identities(), executor=executor)
    await kept.refresh(collections)
    assert kept.nearest({MODEL: vector(1, 50)}) is not None
    await collections.identities.delete_many({})
    await kept.compare(collections)
    assert kept.nearest({MODEL: vector(1, 50)}) is None


async def test_counts_follow_what_is_assigned_and_deleted(collections: Collections, executor: Executor) -> None:
    await insert(collections, *[image(shot, face(1, shot)) for shot in range(4)])
    await recluster(collections, Identities(), executor=executor)
    tally = Tally(collections)
    counting = asyncio.create_task(tally.run())

    async def counts(faces: int, images: int) -> bool:
        document = await collections.identities.find_one({})
        return document is not None and (document["face_count"], document["image_count"]) == (faces, images)

    before = await collections.identities.find_one({}, {"updated_at": 1})
    try:
        await write_faces(collections, [image(50, face(1, 50)), image(51, face(1, 51))], NOW, tally=tally)
        await eventually(lambda: counts(6, 6))
        # counting makes no daemon read the person again
        assert await collections.identities.find_one({}, {"updated_at": 1}) == before
        await delete_faces(collections, [{"_id": 50}, {"_id": 0}, {"_id": 1}], tally)
        await eventually(lambda: counts(3, 3))
        await write_faces(collections, [image(51)], NOW, tally=tally)  # the photo was replaced by one without a face
        await eventually(lambda: counts(2, 2))
    finally:
        counting.cancel()


async def test_faces_of_a_model_without_a_calibration_wait(
    collections: Collections, executor: Executor, tmp_path: Path
) -> None:
    shots = [image(shot, face(1, shot, embeddings={"mine": vector(1, shot)})) for shot in range(4)]
    await insert(collections, *shots)
    with pytest.raises(CalibrationMissing):
        await recluster(collections, Identities(), executor=executor)
    file = tmp_path / "calibration.toml"
    file.write_text(as_toml(replace(Calibrations.load().of(MODEL), model="mine")))
    settings = Identities(calibration=file)
    assert (await recluster(collections, settings, executor=executor)).identities == 1
    later = face(1, 50, embeddings={"mine": vector(1, 50)})
    for calibrations, assigned in ((None, False), (Calibrations.load(file), True)):
        number = 50 + int(assigned)
        [[known]] = await write_faces(collections, [image(number, later)], NOW, Exemplars(calibrations))
        assert (known["identity"] is not None) is assigned


async def test_exemplars_that_are_kept_follow_the_identities(collections: Collections, executor: Executor) -> None:
    kept = Exemplars()
    await write_faces(collections, [image(shot, face(1, shot)) for shot in range(4)], NOW, kept)
    await recluster(collections, Identities(), executor=executor)
    [[known]] = await write_faces(collections, [image(40, face(1, 40))], NOW, kept)
    assert known["identity"] is not None
    await collections.identities.delete_many({})  # gone behind its back: nobody is assigned to what is not there
    [[lost]] = await write_faces(collections, [image(41, face(1, 41))], NOW, kept)
    assert lost["identity"] is None

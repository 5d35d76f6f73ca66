"""What people decide outlives every recluster, and can be taken back."""

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from bson import ObjectId

from daemon import decisions
from daemon.config import Identities
from daemon.faces import write_faces
from daemon.identities import note_name, recluster
from daemon.store import faces as face_store
from daemon.store.collections import Collections, Document
from daemon.store.identities import Identity, identity
from tests.people import NOW, face, image, insert

pytestmark = pytest.mark.integration

SHOTS = 4


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@dataclass
class People:
    """A database with people 0, 1 and 2 on four photos each, clustered. Photo `who * 10 + shot` shows one face."""

    collections: Collections
    executor: Executor

    async def recluster(self) -> None:
        await recluster(self.collections, Identities(), full=True, executor=self.executor)

    async def shown(self, who: int) -> list[Document]:
        """The faces of a person as the images show them."""
        query = {"_id": {"$gte": who * 10, "$lt": who * 10 + 10}}
        return [d["enrichments"]["faces"]["items"][0] async for d in self.collections.images.find(query).sort("_id")]

    async def identities(self, who: int) -> set[ObjectId | None]:
        return {item["identity"] for item in await self.shown(who)}

    async def identity(self, who: int) -> Identity:
        [id] = await self.identities(who)
        document = await self.collections.identities.find_one({"_id": id})
        assert document is not None
        return identity(document)

    async def faces(self, who: int, count: int = SHOTS) -> list[Any]:
        ids = [item["face"] for item in (await self.shown(who))[:count]]
        return await decisions.find_faces(self.collections, ids)


@pytest.fixture
async def people(collections: Collections, executor: Executor) -> AsyncIterator[People]:
    shots = [image(who * 10 + shot, face(who, shot)) for who in range(3) for shot in range(SHOTS)]
    await insert(collections, *shots)
    people = People(collections, executor)
    await people.recluster()
    yield people


async def test_a_name_is_shown_and_undone(people: People) -> None:
    entry = await decisions.name(people.collections, await people.identity(0), "Ada")
    assert {item["name"] for item in await people.shown(0)} == {"Ada"}
    await decisions.undo(people.collections, entry)
    assert {item["name"] for item in await people.shown(0)} == {None}


async def test_merged_people_stay_one(people: People) -> None:
    one, other = await people.identity(0), await people.identity(1)
    entry = await decisions.merge(people.collections, one, [other])
    await people.recluster()
    assert await people.identities(0) == await people.identities(1) == {one.id}
    merged = await people.collections.identities.find_one({"_id": other.id})
    assert merged is not None and (merged["state"], merged["merged_into"]) == ("merged", one.id)
    await decisions.undo(people.collections, entry)
    await people.recluster()
    assert (await people.identities(0), await people.identities(1)) == ({one.id}, {other.id})


async def test_split_faces_stay_apart(people: People) -> None:
    one = await people.identity(0)
    new, entry = await decisions.split(people.collections, one, await people.faces(0, 2), "Twin")
    await people.recluster()
    shown = await people.shown(0)
    assert [item["identity"] for item in shown] == [new, new, one.id, one.id]
    assert [item["name"] for item in shown] == ["Twin", "Twin", None, None]
    await decisions.undo(people.collections, entry)
    await people.recluster()
    assert await people.identities(0) == {one.id}
    assert await people.collections.identities.count_documents({"_id": new}) == 0


async def test_a_face_that_is_not_this_person_does_not_come_back(people: People) -> None:
    one = await people.identity(0)
    entry = await decisions.not_this_person(people.collections, await people.faces(0, 1))
    await people.recluster()
    assert [item["identity"] == one.id for item in await people.shown(0)] == [False, True, True, True]
    await decisions.undo(people.collections, entry)
    assert await people.identities(0) == {one.id}


async def test_what_is_not_a_face_belongs_to_nobody(people: People) -> None:
    one = await people.identity(0)
    entry = await decisions.not_a_face(people.collections, await people.faces(0, 1))
    await people.recluster()
    assert [item["identity"] for item in await people.shown(0)] == [None, one.id, one.id, one.id]
    await decisions.undo(people.collections, entry)
    assert await people.identities(0) == {one.id}


async def test_an_ignored_stranger_collects_faces_out_of_sight(people: People) -> None:
    one = await people.identity(0)
    entry = await decisions.ignore(people.collections, one)
    [[item]] = await write_faces(people.collections, [image(9, face(0, 9))], NOW)
    stored = (await face_store.by_ids(people.collections, [item["face"]]))[item["face"]]
    assert (stored.identity, stored.verdict) == (one.id, "ignored")
    await decisions.undo(people.collections, entry)
    assert (await people.identity(0)).state == "active"


async def test_a_hidden_identity_shows_no_name(people: People) -> None:
    await decisions.name(people.collections, await people.identity(0), "Ada")
    entry = await decisions.hide(people.collections, await people.identity(0))
    assert {item["name"] for item in await people.shown(0)} == {None}
    await decisions.undo(people.collections, entry)
    assert {item["name"] for item in await people.shown(0)} == {"Ada"}


async def test_the_latest_decision_counts(people: People) -> None:
    one, other = await people.identity(0), await people.identity(1)
    await decisions.merge(people.collections, one, [other])
    new, _ = await decisions.split(people.collections, one, await people.faces(1))
    await people.recluster()
    assert (await people.identities(0), await people.identities(1)) == ({one.id}, {new})


async def test_two_of_one_name_are_not_merged(people: People) -> None:
    for who in (0, 1):
        await decisions.name(people.collections, await people.identity(who), "Ada")
    await people.recluster()
    assert await people.identities(0) != await people.identities(1)


async def test_a_forgotten_person_leaves_nothing_and_does_not_come_back(people: People) -> None:
    one = await people.identity(0)
    await decisions.name(people.collections, one, "Ada")
    faces = [item["face"] for item in await people.shown(0)]
    assert await decisions.forget(people.collections, one) == SHOTS
    everything = [
        repr(document)
        for collection in await people.collections.database.list_collection_names()
        async for document in people.collections.database[collection].find()
    ]
    assert not [text for text in everything if "Ada" in text or str(one.id) in text]
    async for document in people.collections.faces.find({"_id": {"$in": faces}}):
        assert not document["embeddings"] and "thumbnail" not in document and "landmarks" not in document
    again = [image(shot, face(0, shot)) for shot in range(SHOTS)]  # the same photos, and one of them as a new document
    await insert(people.collections, *again, image(99, face(0, 0), sha="sha0"))
    await people.recluster()
    assert await people.identities(0) == {None}
    assert await people.collections.faces.count_documents({"verdict": "forgotten"}) == SHOTS + 1


async def test_the_name_of_a_person_forgotten_meanwhile_is_not_noted(people: People) -> None:
    one = await people.identity(0)
    await people.collections.identities.update_one({"_id": one.id}, {"$set": {"name": "Ada"}})
    read = await people.collections.identities.find_one({"_id": one.id})
    assert read is not None
    await decisions.forget(people.collections, one)
    await note_name(people.collections, read)
    assert not [entry async for entry in people.collections.audit.find() if "Ada" in repr(entry)]


async def test_an_undone_decision_cannot_be_undone_again(people: People) -> None:
    entry = await decisions.name(people.collections, await people.identity(0), "Ada")
    await decisions.undo(people.collections, entry)
    with pytest.raises(decisions.DecisionInvalid):
        await decisions.undo(people.collections, entry)

"""Whatever happens to a collection, people's names and corrections stay."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import AsyncMongoClient

from daemon import decisions
from daemon.calibration import Calibrations, as_toml
from daemon.config import Identities
from daemon.embedded import EmbeddedServer
from daemon.faces import delete_faces
from daemon.identities import recluster
from daemon.store.collections import Collections, Document, open_collections
from daemon.store.faces import StoredFace, stored_face
from daemon.store.identities import MERGED, Identity, identity
from migrations.steps import migrate
from tests.people import MODEL, face, image, insert, vector

pytestmark = pytest.mark.integration

PEOPLE = 4
#: a second embedding model, in which the same people lie elsewhere
OTHER_MODEL = "other"

step = st.one_of(
    st.tuples(st.just("insert"), st.integers(0, PEOPLE - 1), st.integers(1, 3)),
    st.tuples(st.just("delete"), st.integers(0, 50), st.integers(1, 3)),
    st.tuples(st.just("name"), st.integers(0, 50), st.just(0)),
    st.tuples(st.just("merge"), st.integers(0, 50), st.integers(0, 50)),
    st.tuples(st.just("split"), st.integers(0, 50), st.integers(1, 2)),
    st.tuples(st.just("not this person"), st.integers(0, 50), st.just(0)),
    st.tuples(st.just("not a face"), st.integers(0, 50), st.just(0)),
    st.tuples(st.just("change model"), st.just(0), st.just(0)),
)


class World:
    """A collection that things happen to, and what people decided so far: what must hold from then on."""

    def __init__(self, collections: Collections, executor: ThreadPoolExecutor, calibration: Path) -> None:
        self.collections = collections
        self.settings = Identities(calibration=calibration)
        self.executor = executor
        self.shots = 0
        self.models = [MODEL]
        self.named: dict[ObjectId, str] = {}
        self.together: list[tuple[ObjectId, ObjectId]] = []
        self.apart: list[tuple[ObjectId, ObjectId]] = []
        self.not_person: list[tuple[ObjectId, ObjectId]] = []
        self.no_faces: list[ObjectId] = []

    async def recluster(self, full: bool = False) -> None:
        await recluster(self.collections, self.settings, full=full, executor=self.executor)

    async def faces(self) -> list[StoredFace]:
        return [stored_face(document) async for document in self.collections.faces.find().sort("_id")]

    async def identities(self) -> list[Identity]:
        documents = [document async for document in self.collections.identities.find().sort("_id")]
        return [entry for entry in map(identity, documents) if entry.state != MERGED]

    async def do(self, action: str, first: int, second: int) -> None:
        await getattr(self, action.replace(" ", "_"))(first, second)
        await self.recluster()

    async def insert(self, who: int, count: int) -> None:
        for _ in range(count):
            self.shots += 1
            embeddings = {model: vector(who + 1000 * number, self.shots) for number, model in enumerate(self.models)}
            await insert(self.collections, image(self.shots, face(who, self.shots, embeddings=embeddings)))

    async def delete(self, start: int, count: int) -> None:
        faces = (await self.faces())[start % max(self.shots, 1) :][:count]
        await delete_faces(self.collections, [face.image for face in faces])
        gone = {face.id for face in faces} - {face.id for face in await self.faces()}
        for pairs in (self.together, self.apart, self.not_person):
            pairs[:] = [pair for pair in pairs if not gone & set(pair)]  # type: ignore[index]

    async def name(self, which: int, _: int) -> None:
        if people := await self.identities():
            entry = people[which % len(people)]
            self.named[entry.id] = f"person {len(self.named)}"
            await decisions.name(self.collections, entry, self.named[entry.id])

    async def merge(self, which: int, other: int) -> None:
        people = await self.identities()
        if len(people) < 2 or which % len(people) == other % len(people):
            return
        into, gone = people[which % len(people)], people[other % len(people)]
        faces = await self.faces()
        members = [face.id for face in faces if face.identity in (into.id, gone.id)]
        await decisions.merge(self.collections, into, [gone])
        if (name := self.named.pop(gone.id, None)) and not into.name:
            self.named[into.id] = name
        self.apart = [pair for pair in self.apart if not set(pair) <= set(members)]
        self.not_person = [
            pair for pair in self.not_person if not (pair[0] in members and pair[1] in (into.id, gone.id))
        ]
        self.not_person = [(face, into.id if id == gone.id else id) for face, id in self.not_person]
        self.together += [(members[0], member) for member in members[1:]]

    async def split(self, which: int, count: int) -> None:
        people = await self.identities()
        if not people:
            return
        entry = people[which % len(people)]
        members = [face for face in await self.faces() if face.identity == entry.id]
        chosen, rest = members[:count], members[count:]
        if not chosen or not rest:
            return
        await decisions.split(self.collections, entry, chosen)
        self.forget_together({face.id for face in chosen}, {face.id for face in rest})
        self.apart += [(one.id, other.id) for one in chosen for other in rest]

    async def not_this_person(self, which: int, _: int) -> None:
        faces = [face for face in await self.faces() if face.identity is not None]
        if not faces:
            return
        wrong = faces[which % len(faces)]
        rest = {face.id for face in faces if face.identity == wrong.identity} - {wrong.id}
        await decisions.not_this_person(self.collections, [wrong])
        self.forget_together({wrong.id}, rest)
        assert wrong.identity is not None
        self.not_person.append((wrong.id, wrong.identity))

    async def not_a_face(self, which: int, _: int) -> None:
        if faces := await self.faces():
            chosen = faces[which % len(faces)]
            await decisions.not_a_face(self.collections, [chosen])
            self.no_faces.append(chosen.id)

    async def change_model(self, _: int, __: int) -> None:
        """Every face gets a vector of the other model beside the one it has."""
        if OTHER_MODEL in self.models:
            return
        self.models.append(OTHER_MODEL)
        async for document in self.collections.images.find():
            stored = await self.collections.faces.find_one({"image._id": document["_id"]})
            if stored is None:
                continue
            who = stored["_id"].binary[0] % PEOPLE  # an unlucky model: it sees other people than the first did
            both = {OTHER_MODEL: vector(who + 1000, document["_id"])}
            await insert(self.collections, image(document["_id"], face(who, 0, embeddings=both)))

    def forget_together(self, ones: set[ObjectId], others: set[ObjectId]) -> None:
        """What was said to be together is not any more, where a later decision parts it."""
        graph: dict[ObjectId, set[ObjectId]] = {}
        for a, b in self.together:
            graph.setdefault(a, set()).add(b)
            graph.setdefault(b, set()).add(a)
        if graph:
            self.together = [
                (a, b) for a, b in self.together if not ({a, b} & ones or {a, b} & others)
            ]  # what the parted ones shared is no longer claimed, which asks less than it might

    async def check(self) -> None:
        faces = {face.id: face for face in await self.faces()}
        people = {entry.id: entry for entry in await self.identities()}
        for id, name in self.named.items():
            assert people[id].name == name, "a named identity disappeared"
        no_faces = set(self.no_faces)
        for a, b in self.together:
            if a in faces and b in faces and not {a, b} & no_faces:
                assert faces[a].identity == faces[b].identity is not None, "a merge was undone"
        for a, b in self.apart:
            if a in faces and b in faces and faces[a].identity is not None:
                assert faces[a].identity != faces[b].identity, "a split was undone"
        for face_id, id in self.not_person:
            assert face_id not in faces or faces[face_id].identity != id, "a wrong person came back"
        for id in no_faces & set(faces):
            assert faces[id].identity is None, "what is no face came back"

    async def snapshot(self) -> list[Any]:
        collections = (self.collections.faces, self.collections.identities, self.collections.images)
        return [[document async for document in collection.find().sort("_id")] for collection in collections]


async def live(server: EmbeddedServer, calibration: Path, steps: list[tuple[str, int, int]]) -> None:
    client: AsyncMongoClient[Document] = AsyncMongoClient(server.uri)
    database = f"test_{uuid.uuid4().hex[:12]}"
    try:
        collections = open_collections(client, database, "images")
        await migrate(collections)
        with ThreadPoolExecutor(1) as executor:
            world = World(collections, executor, calibration)
            for who in range(PEOPLE):
                await world.insert(who, 3)
            await world.recluster()
            for action, first, second in steps:
                await world.do(action, first, second)
                await world.check()
            before = await world.snapshot()
            await world.recluster()
            assert await world.snapshot() == before, "an unchanged collection changed"
            await world.recluster(full=True)
            await world.check()
    finally:
        await client.drop_database(database)
        await client.close()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The other model's distances mean the same as the first's."""
    file = tmp_path_factory.mktemp("calibration") / "calibration.toml"
    file.write_text(as_toml(replace(Calibrations.load().of(MODEL), model=OTHER_MODEL)))
    return file


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(step, min_size=3, max_size=7))
def test_names_and_corrections_stay(
    server: EmbeddedServer, calibration: Path, steps: list[tuple[str, int, int]]
) -> None:
    run(lambda: live(server, calibration, steps))


@pytest.mark.parametrize(
    "steps",
    [
        [("name", 0, 0), ("merge", 0, 1), ("change model", 0, 0)],  # a merge of people whom a new model tells apart
        [("name", 0, 0), ("name", 1, 0), ("delete", 0, 3), ("delete", 0, 3)],  # named people lose all their photos
        [("split", 0, 1), ("insert", 0, 3), ("change model", 0, 0)],  # a split of faces that look alike
        [("not this person", 0, 0), ("insert", 0, 3), ("insert", 0, 3)],  # look-alikes of the person come in
        [("merge", 0, 1), ("split", 0, 2), ("merge", 1, 0)],  # decisions against one another: the latest counts
    ],
)
def test_particular_histories(server: EmbeddedServer, calibration: Path, steps: list[tuple[str, int, int]]) -> None:
    run(lambda: live(server, calibration, steps))

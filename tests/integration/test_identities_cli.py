"""`enrichd identities` as a user runs it."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from PIL import Image
from pymongo import AsyncMongoClient
from typer import Typer
from typer.testing import CliRunner

from daemon.cli import service
from daemon.cli.identities import app
from daemon.config import Identities
from daemon.embedded import EmbeddedServer
from daemon.faces import ImageFaces
from daemon.identities import recluster
from daemon.store.collections import Document, open_collections
from enrichers.errors import EnrichdError
from tests.people import face, image, insert

pytestmark = pytest.mark.integration

recluster_app = Typer()
recluster_app.command()(service.recluster)


class Cli:
    """Runs commands on one database."""

    def __init__(self, uri: str, database: str) -> None:
        self._uri, self._database = uri, database

    def __call__(self, *arguments: object) -> Any:
        return json.loads(self.text(*arguments, "--json"))

    def text(self, *arguments: object) -> str:
        return self._invoke(app, *arguments)

    def run(self, other: Typer, *arguments: object) -> Any:
        """A command that is none of `enrichd identities`."""
        return json.loads(self._invoke(other, *arguments, "--json"))

    def words(self, other: Typer, *arguments: object) -> str:
        return self._invoke(other, *arguments)

    async def add(self, *shots: ImageFaces) -> None:
        client: AsyncMongoClient[Document] = AsyncMongoClient(self._uri)
        await insert(open_collections(client, self._database, "images"), *shots)
        await client.close()

    async def set_field(self, identities: list[str], field: str, value: str) -> None:
        """As anybody may in mongosh."""
        client: AsyncMongoClient[Document] = AsyncMongoClient(self._uri)
        collection = open_collections(client, self._database, "images").identities
        query = {"_id": {"$in": [ObjectId(id) for id in identities]}}
        assert (await collection.update_many(query, {"$set": {field: value}})).modified_count == len(identities)
        await client.close()

    async def set_sources(self) -> None:
        """A source for each image, as an app would have inserted it."""
        client: AsyncMongoClient[Document] = AsyncMongoClient(self._uri)
        images = open_collections(client, self._database, "images").images
        async for document in images.find({}, {"_id": 1}):
            source = f"album/{document['_id']}.jpg"
            await images.update_one({"_id": document["_id"]}, {"$set": {"source": source}})
        await client.close()

    def _invoke(self, command: Typer, *arguments: object) -> str:
        flags = ["--uri", self._uri, "--database", self._database]
        result = CliRunner().invoke(command, [*map(str, arguments), *flags], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout


@pytest.fixture
def cli(server: EmbeddedServer, database: str) -> Cli:
    """Three people on four photos each, clustered."""

    async def prepare() -> None:
        client: AsyncMongoClient[Document] = AsyncMongoClient(server.uri)
        collections = open_collections(client, database, "images")
        shots = [image(who * 10 + shot, face(who, shot)) for who in range(3) for shot in range(4)]
        await insert(collections, *shots)
        with ThreadPoolExecutor(1) as executor:  # a process takes seconds to start
            await recluster(collections, Identities(), executor=executor)
        await client.close()

    asyncio.run(prepare())
    return Cli(server.uri, database)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nobody"], "There is no identity 'nobody'; `enrichd identities list` shows"),
        (["not-a-face", "xyz"], "'xyz' is not an id of a face; `enrichd identities show IDENTITY` lists"),
        (["undo", "xyz"], "There is no decision of that id; `enrichd identities history` lists"),
        (["plot", "people.pdf"], "people.pdf: the name must end in .png or .html"),
        (["plot", "/nowhere/people.png"], "There is no folder /nowhere"),
        (["show", "x", "--montage", "sheet.xyz"], "sheet.xyz: the name must end in .png or"),
        (["train", "--confusion", "/nowhere/a.png"], "There is no folder /nowhere"),
        (["train"], "No active identity has a name; it is given in mongosh: db.identities.updateOne"),
    ],
)
def test_an_error_says_what_to_do(cli: Cli, arguments: list[str], message: str) -> None:
    with pytest.raises(EnrichdError) as raised:
        cli.text(*arguments)
    assert message in str(raised.value)


def test_an_identity_is_told_by_the_files_it_is_on_and_found_in_any_case(cli: Cli) -> None:
    asyncio.run(cli.set_sources())
    entries = cli("list")
    assert all(len(entry["sources"]) == 3 for entry in entries)
    person, sources = entries[0]["_id"], entries[0]["sources"]
    assert sources[0].removeprefix("album/") in cli.text("list")
    cli("name", person, "Ada Lovelace")
    shown = cli("show", "ada lovelace")
    assert shown["_id"] == person
    assert set(sources) <= {face["source"] for face in shown["faces"]}
    assert all(face["source"] in cli.text("show", person) for face in shown["faces"])
    with pytest.raises(EnrichdError, match="Did you mean 'Ada Lovelace'"):
        cli.text("show", "ada lovelase")
    cli("name", entries[1]["_id"], "ADA LOVELACE")
    assert cli("show", "Ada Lovelace")["_id"] == person
    with pytest.raises(EnrichdError, match="Several identities are called 'ada lovelace'"):
        cli.text("show", "ada lovelace")


def test_nothing_to_suggest_is_said(cli: Cli) -> None:
    assert cli.text("suggest") == "nothing to suggest\n"


def test_a_recluster_tells_who_goes_where(cli: Cli) -> None:
    person = cli("list")[0]["_id"]
    cli("name", person, "Ada")
    wrong = cli("show", "Ada")["faces"][0]["_id"]
    cli("not-this-person", wrong)
    told = cli.run(recluster_app, "--dry-run", "--full")
    assert (told["dry_run"], told["full"], told["moves"]) == (True, True, [])
    for number in range(2):  # two more shots of somebody else
        asyncio.run(cli.add(image(500 + number, face(7, number))))
    told = cli.run(recluster_app, "--dry-run")
    [move] = told["moves"]
    assert (move["faces"], move["from"], move["to"]["new"]) == (2, None, True)
    words = cli.words(recluster_app, "--dry-run")
    assert "faces would be grouped into 4 identities" in words
    assert "It would change: 2 faces assigned, 1 identity created" in words


def test_any_field_of_the_identities_can_be_learned(cli: Cli, tmp_path: Path) -> None:
    people = [entry["_id"] for entry in cli("list")]
    asyncio.run(cli.set_field(people[:2], "team", "red"))
    asyncio.run(cli.set_field(people[2:], "team", "blue"))
    trained = cli("train", "--label", "team", "--min-images", "4", "--confusion", tmp_path / "confusion.png")
    assert (trained["label"], trained["labels"], trained["faces"]) == ("team", 2, 12)
    assert trained["judged"]["accuracy"] == 1.0
    assert Image.open(tmp_path / "confusion.png").width > 100


def test_a_session(cli: Cli, tmp_path: Path) -> None:
    people = cli("list")
    assert [entry["face_count"] for entry in people] == [4, 4, 4]
    first, second, third = (entry["_id"] for entry in people)
    cli("name", first, "Ada")
    assert cli("show", "Ada")["name"] == "Ada"
    decision = cli("merge", "Ada", second)["decision"]
    assert cli("show", "Ada")["face_count"] == 8
    cli("undo", decision)
    faces = [entry["_id"] for entry in cli("show", "Ada")["faces"]]
    assert len(faces) == 4
    new = cli("split", "Ada", faces[0], "--name", "Ida")["identity"]
    assert cli("show", "Ida")["_id"] == new
    cli("not-this-person", faces[1])
    cli("not-a-face", faces[2])
    cli("hide", third)
    cli("ignore", second)
    assert {entry["_id"] for entry in cli("list")} == {first, new}
    assert [entry["action"] for entry in cli("history")][:3] == ["ignore", "hide", "not a face"]
    assert "split: 'Ida'" in cli.text("history")
    cli("name", new, "ada")
    assert cli("suggest")[0]["evidence"] == "both are called 'Ada'"
    cli.text("show", "Ada", "--montage", tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").width > 100
    assert cli.text("plot", tmp_path / "people.png").strip().endswith("people.png")
    cli.text("plot", tmp_path / "people.html")
    assert Image.open(tmp_path / "people.png").size == (1600, 800)
    page = (tmp_path / "people.html").read_text()
    assert "http" not in page and '"Ada"' in page
    assert cli("forget", "Ada", "--dry-run") == {"faces": 1, "dry_run": True}
    assert cli("forget", "Ada", "--yes") == {"faces": 1, "dry_run": False}
    assert first not in json.dumps(cli("list", "--all"))

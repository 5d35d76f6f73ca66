"""`enrichd identities` as a user runs it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pymongo import AsyncMongoClient
from typer.testing import CliRunner

from daemon.cli.identities import app
from daemon.config import Identities
from daemon.embedded import EmbeddedServer
from daemon.identities import recluster
from daemon.store.collections import Document, open_collections
from tests.people import face, image, insert

pytestmark = pytest.mark.integration


class Cli:
    """Runs commands on one database."""

    def __init__(self, uri: str, database: str) -> None:
        self._flags = ["--uri", uri, "--database", database]

    def __call__(self, *arguments: object) -> Any:
        return json.loads(self.text(*arguments, "--json"))

    def text(self, *arguments: object) -> str:
        result = CliRunner().invoke(app, [*map(str, arguments), *self._flags], catch_exceptions=False)
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
        await recluster(collections, Identities())
        await client.close()

    asyncio.run(prepare())
    return Cli(server.uri, database)


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
    cli("name", new, "ada")
    assert cli("suggest")[0]["evidence"] == "both are called 'Ada'"
    cli.text("show", "Ada", "--montage", tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").width > 100
    cli.text("plot", tmp_path / "people.png")
    cli.text("plot", tmp_path / "people.html")
    assert Image.open(tmp_path / "people.png").size == (1600, 800)
    page = (tmp_path / "people.html").read_text()
    assert "http" not in page and '"Ada"' in page
    assert cli("forget", "Ada", "--yes") == {"faces": 1}
    assert first not in json.dumps(cli("list", "--all"))

"""`enrichd search` finds an image of the collection by an edited copy of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from daemon.cli import app
from daemon.cli.search import open_similarity
from daemon.config import Config
from daemon.embedded import EmbeddedServer
from daemon.evaluate.edits import EDITS
from daemon.store.collections import Collections
from daemon.store.images import plain
from enrichers.contract import Result
from enrichers.weights import ModelStore
from tests.unit.scene_images import image, textured

pytestmark = pytest.mark.integration


def run(server: EmbeddedServer, database: str, *arguments: str) -> Any:
    result = CliRunner().invoke(app, ["search", *arguments, "--uri", server.uri, "--database", database, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
async def stored(collections: Collections, model_store: ModelStore) -> list[Any]:
    """Three pictures, enriched; a fourth whose vector is of another model."""
    if missing := model_store.missing(["efficientnet_lite3"]):
        pytest.skip(f"the weights of {', '.join(missing)} have not been pulled")
    enricher = open_similarity(Config())
    pictures = [textured(seed, 480, 640) for seed in range(4)]
    documents = []
    for number, outcome in enumerate(enricher.enrich([image(picture) for picture in pictures])):
        assert isinstance(outcome, Result)
        fingerprint = enricher.fingerprint({}) if number < 3 else "another"
        answer = {**plain(outcome.answer), "run": {"state": "done", "fingerprint": fingerprint}}
        documents.append({"source": f"{number}.jpg", "enrichments": {"similarity": answer}})
    return list((await collections.images.insert_many(documents)).inserted_ids)


@pytest.mark.parametrize("edit", ["turn_90", "screenshot", "crop_50"])
async def test_an_edited_copy_finds_its_image(
    stored: list[Any], server: EmbeddedServer, database: str, tmp_path: Path, edit: str
) -> None:
    import asyncio

    file = tmp_path / "edited.png"
    Pillow.fromarray(EDITS[edit](textured(1, 480, 640), np.random.default_rng(0))).save(file)
    found = await asyncio.to_thread(run, server, database, str(file))
    assert found["left_out"] == 1
    assert len(found["matches"]) == 3
    best = found["matches"][0]
    assert (best["_id"], best["source"], best["same"]) == (str(stored[1]), "1.jpg", True)
    assert not any(match["same"] for match in found["matches"][1:])
    sure = await asyncio.to_thread(run, server, database, str(file), "--min-score", "1")
    assert ([match["_id"] for match in sure["matches"]], sure["searched"]) == ([str(stored[1])], 3)  # proven


async def test_an_empty_collection_has_no_matches(
    collections: Collections, model_store: ModelStore, server: EmbeddedServer, database: str, tmp_path: Path
) -> None:
    import asyncio

    if missing := model_store.missing(["efficientnet_lite3"]):
        pytest.skip(f"the weights of {', '.join(missing)} have not been pulled")
    file = tmp_path / "picture.png"
    Pillow.fromarray(textured(1)).save(file)
    assert await asyncio.to_thread(run, server, database, str(file)) == {"matches": [], "searched": 0, "left_out": 0}

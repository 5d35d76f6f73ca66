"""`enrichd faces export --from-db`: stored faces, cut out of sources of every kind, in a folder for each identity."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from bson import Binary, ObjectId
from PIL import Image
from typer.testing import CliRunner

from daemon.cli.faces import app
from daemon.embedded import EmbeddedServer
from daemon.store.collections import Collections
from enrichers.alignment import template
from enrichers.weights import ModelStore
from tests.conftest import pulled

pytestmark = pytest.mark.integration

LANDMARKS = (template("dlib", 150) + 100).tolist()


def face(image: ObjectId, identity: ObjectId | None, side: float = 150, **more: object) -> dict[str, object]:
    fields = {"_id": ObjectId(), "image": {"_id": image}, "box": [100, 100, side, side], "landmarks": LANDMARKS}
    return {**fields, "identity": identity, "verdict": None, **more}


async def test_stored_faces_are_exported_by_identity(
    server: EmbeddedServer, database: str, collections: Collections, model_store: ModelStore, tmp_path: Path
) -> None:
    pulled(model_store, "centerface")
    picture = Image.fromarray(np.full((400, 400, 3), 90, np.uint8))
    picture.save(tmp_path / "file.png")
    data = (tmp_path / "file.png").read_bytes()
    by_path, by_bytes, gone = ObjectId(), ObjectId(), ObjectId()
    await collections.images.insert_many(
        [
            {"_id": by_path, "source": str(tmp_path / "file.png")},
            {"_id": by_bytes, "source": Binary(data)},
            {"_id": gone, "source": str(tmp_path / "gone.png")},
        ]
    )
    grace, nameless = ObjectId(), ObjectId()
    await collections.identities.insert_many([{"_id": grace, "name": "Grace Hopper"}, {"_id": nameless}])
    kept = [face(by_path, grace), face(by_path, nameless, side=90), face(by_bytes, None)]
    others = [
        face(gone, grace),
        face(by_bytes, grace, verdict="not_a_face"),
        face(by_bytes, grace, detached=True),
        face(ObjectId(), grace),  # of an image that is no longer there
    ]
    await collections.faces.insert_many([*kept, *others])

    def run(*flags: str) -> tuple[int, dict[str, object], list[str]]:
        out = tmp_path / f"out{len(flags)}"
        arguments = ["export", str(out), "--from-db", "--json", "--workers", "1", "--size", "64", *flags]
        shared = ["--uri", server.uri, "--database", database, "--root", str(tmp_path)]
        shared += ["--set", f"models.cache={model_store.cache}"]
        result = CliRunner().invoke(app, [*arguments, *shared])
        written = sorted(str(p.relative_to(out)) for p in out.rglob("*.png"))
        return result.exit_code, json.loads(result.stdout), written

    code, summary, written = await asyncio.to_thread(run, "--every")
    assert code == 0
    assert (summary["images"], summary["faces"], summary["failed"]) == (3, 3, 1)
    folders = ["Grace Hopper", str(nameless), "unknown"]
    assert written == sorted(f"{folder}/{f['_id']}.png" for folder, f in zip(folders, kept, strict=True))
    code, summary, written = await asyncio.to_thread(run)
    assert (code, summary["faces"]) == (0, 2)
    assert written == sorted([f"Grace Hopper/{kept[0]['_id']}.png", f"unknown/{kept[2]['_id']}.png"])

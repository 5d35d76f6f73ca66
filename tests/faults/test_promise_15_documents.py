"""Promise 15: a document that is nearly full, deeply nested or oddly named is enriched or set aside with its reason."""

import asyncio
from typing import Any

import pytest

from tests.faults.conftest import World, picture

pytestmark = pytest.mark.integration


def nested(depth: int) -> dict[str, Any]:
    return {"in": nested(depth - 1)} if depth else {}


async def test_promise_15_odd_documents_are_enriched_or_explained(world: World) -> None:
    daemon = await world.started()
    image = picture(1)
    enriched: dict[str, dict[str, Any]] = {
        "deep": {"source": image, "nest": nested(95)},
        "odd names": {"source": image, "a.b": 1, "$x": {"$y": 2}, "": 3, "ключ 🙂": 4, "enrichments.standin": "mine"},
        "odd source": {"source": {"data": image, "a.b": 1, "$where": "x", "": 2}},
        "large source": {"source": {"data": b"\0" * (9 << 20), "note": "no image"}},
        "huge source": {"source": b"\0" * ((16 << 20) - 2000)},
    }
    refused: dict[str, dict[str, Any]] = {
        "full": {"source": image, "filler": "x" * ((16 << 20) - len(image) - 200)},
        "mine": {"source": image, "enrichments": "the user's own"},
        "mine too": {"source": image, "enrichment": ["the user's own"]},
    }
    for _id, document in {**enriched, **refused}.items():
        await world.images.insert_one({"_id": _id, **document})
    for _id in enriched:
        await world.settled({"_id": _id, "enrichment.state": {"$in": ["complete", "unreadable"]}}, 1)
    for _id in ("deep", "odd names", "odd source"):
        await world.settled({"_id": _id, "enrichment.state": "complete"}, 1)
    for _id in refused:
        stated = await world.images.count_documents({"_id": _id, "enrichment.error.type": "DocumentRefused"})
        if not stated:
            await _failure(world, _id)
    found = await world.images.find_one({"_id": "odd names"})
    assert {name: found[name] for name in enriched["odd names"]} == enriched["odd names"], "the user's fields stay"
    assert await world.images.count_documents({}) == len(enriched) + len(refused)
    assert daemon.running
    await daemon.stop()
    assert await world.violations() == []


async def _failure(world: World, _id: str) -> None:
    async with asyncio.timeout(60):
        while (failure := await world.collections.failures.find_one({"_id": _id})) is None:
            if await world.images.count_documents({"_id": _id, "enrichment.error.type": "DocumentRefused"}):
                return
            await asyncio.sleep(0.1)
    assert (
        failure["error"]["type"] in ("DocumentRefused", "DocumentUnmatched") and len(failure["error"]["message"]) > 20
    )

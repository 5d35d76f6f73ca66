"""Every broken promise has its violation, and a sound image has none."""

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daemon.plan import ImageDocument, Plan, Step
from daemon.store.verification import IdentityCounts, ImageWithFaces
from daemon.verification import of_identities, of_image

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAN = Plan((Step("objects", "f1"), Step("faces", "f2")))

Document = dict[str, Any]


def _sound() -> Document:
    """A complete image with one face."""
    run = {"state": "done", "image_sha256": "a", "at": NOW}
    item = {"face": "face1", "identity": "ada", "box": [0, 0, 5, 5]}
    return {
        "enrichment": {"state": "complete", "source_ref": "a.jpg", "at": NOW, "plan": PLAN.hash},
        "enrichments": {
            "objects": {"run": {**run, "fingerprint": "f1"}},
            "faces": {"run": {**run, "fingerprint": "f2"}, "items": [item]},
        },
        "faces": [{"_id": "face1", "identity": "ada", "box": [0, 0, 5, 5], "image_sha256": "a"}],
    }


def _kinds(document: Document) -> list[str]:
    image = ImageDocument({"_id": 1}, "a.jpg", document["enrichment"], document["enrichments"])
    shown = document["enrichments"].get("faces", {}).get("items", [])
    entry = ImageWithFaces(image, tuple(shown), tuple(document["faces"]))
    return [violation.kind for violation in of_image(entry, PLAN, NOW)]


def _fail(document: Document, **run: Any) -> None:
    document["enrichments"]["objects"]["run"] |= {"state": "failed", "error": {"type": "E", "message": "why"}, **run}
    document["enrichment"]["state"] = "partial"


def _unreadable(document: Document, error: Any) -> None:
    document["enrichment"] |= {"state": "unreadable", "error": error}
    document["enrichments"] = {name: {"run": {"state": "skipped"}} for name in document["enrichments"]}
    document["faces"] = []


def _second_face(document: Document, **fields: Any) -> None:
    document["faces"].append({**document["faces"][0], "_id": "face2", **fields})


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (lambda d: None, []),
        (lambda d: d.update(enrichment={}, enrichments={}, faces=[]), ["lost"]),
        (lambda d: d["enrichment"].update(source_ref="b.jpg"), ["stale"]),
        (lambda d: d["enrichments"]["objects"]["run"].update(fingerprint="old"), ["stale"]),
        (lambda d: d["enrichment"].update(requested={"objects": "token"}), ["stale"]),
        (lambda d: _fail(d), []),  # explained
        (lambda d: _fail(d, next_attempt_at=NOW - timedelta(1)), []),  # a due retry is no lost work
        (lambda d: _fail(d, error={}), ["unexplained"]),
        (lambda d: (_fail(d), d["enrichment"].update(state="complete")), ["unexplained"]),
        (lambda d: _unreadable(d, {"type": "SourceMissing", "message": "gone"}), []),
        (lambda d: _unreadable(d, None), ["unexplained"]),
        (lambda d: d["enrichments"]["objects"]["run"].update(image_sha256="b"), ["mixed"]),
        (lambda d: d.update(faces=[]), ["lost face"]),
        (lambda d: d["faces"][0].update(identity="eve"), ["stale face"]),
        (lambda d: d["enrichments"]["faces"].update(items=[]), ["orphaned face"]),
        (
            lambda d: (d["enrichments"]["faces"].update(items=[]), d["faces"][0].update(detached=True)),
            [],
        ),  # kept on purpose
        (lambda d: _second_face(d), ["duplicated face", "orphaned face"]),
        (lambda d: _second_face(d, box=[9, 9, 5, 5], detached=True), []),
        (
            lambda d: d["enrichments"]["faces"]["items"].append(deepcopy(d["enrichments"]["faces"]["items"][0])),
            ["duplicated face"],
        ),
    ],
)
def test_an_image(change: Callable[[Document], Any], kinds: list[str]) -> None:
    document = _sound()
    change(document)
    assert _kinds(document) == kinds


@pytest.mark.parametrize(
    ("counts", "kinds"),
    [
        (IdentityCounts(1, "active", False, (3, 2), (3, 2)), []),
        (IdentityCounts(1, "active", False, (3, 2), (2, 2)), ["wrong count"]),
        (IdentityCounts(1, "active", False, (0, 0), (0, 0)), ["empty identity"]),
        (IdentityCounts(1, "active", True, (0, 0), (0, 0)), []),  # a person named it
    ],
)
def test_an_identity(counts: IdentityCounts, kinds: list[str]) -> None:
    assert [violation.kind for violation in of_identities([counts])] == kinds

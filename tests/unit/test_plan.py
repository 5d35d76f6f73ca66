"""What a document lacks, case by case."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Binary, ObjectId

from daemon.plan import ImageDocument, Plan, Reason, Step, decide, source_ref

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PLAN = Plan((Step("objects", "o1"), Step("faces", "f1"), Step("caption", "c1", ("objects",))))


def run(fingerprint: str, at: datetime = NOW, **more: Any) -> dict[str, Any]:
    return {"run": {"state": "done", "fingerprint": fingerprint, "at": at, **more}}


def document(source: Any = "a.jpg", enrichment: dict[str, Any] | None = None, **enrichments: Any) -> ImageDocument:
    complete = {"objects": run("o1"), "faces": run("f1"), "caption": run("c1")}
    return ImageDocument(
        {"_id": 1}, source, {"source_ref": "a.jpg", "state": "complete", **(enrichment or {})}, complete | enrichments
    )


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (document(), {}),
        (document(source=None), {}),  # no source: left alone
        (document(objects=run("o1", at=NOW - timedelta(days=1))), {}),  # older than what builds on it
        (document(source="b.jpg"), dict.fromkeys(("objects", "faces", "caption"), Reason.SOURCE)),
        (document(faces={}), {"faces": Reason.NEW}),  # an answer without provenance is none
        (document(faces="hello"), {"faces": Reason.NEW}),  # somebody else's field of the same name
        (document(faces=run("f0")), {"faces": Reason.FINGERPRINT}),
        (document(objects=run("o0")), {"objects": Reason.FINGERPRINT, "caption": Reason.REQUIRED}),
        (document(objects=run("o1", at=NOW + timedelta(seconds=1))), {"caption": Reason.REQUIRED}),
        (document(enrichment={"requested": {"faces": 1}}), {"faces": Reason.REQUESTED}),
        (document(enrichment={"requested": {"faces": 1}}, faces=run("f1", request=1)), {}),  # answered already
        (document(enrichment={"requested": {"nonsense": 1}}), {}),
        (document(enrichment={"requested": "nonsense"}), {}),
        (document(faces=run("f1", state="failed", next_attempt_at=NOW)), {"faces": Reason.RETRY}),
        (document(faces=run("f1", state="failed", next_attempt_at=NOW + timedelta(seconds=1))), {}),  # not yet
        (document(faces=run("f1", state="failed")), {}),  # permanent
        (document(enrichment={"state": "unreadable"}, objects={}), {}),  # until its source changes
        (
            document(enrichment={"state": "unreadable", "next_attempt_at": NOW}),
            dict.fromkeys(("objects", "faces", "caption"), Reason.RETRY),
        ),
        (
            document(enrichment={"state": "unreadable", "requested": {"faces": 2}}),
            dict.fromkeys(("objects", "faces", "caption"), Reason.REQUESTED),
        ),
        (document(enrichment={"refused": {"plan": PLAN.hash, "requested": {}}}, objects={}), {}),  # it cannot hold more
        (
            document(enrichment={"refused": {"plan": "older", "requested": {}}}, objects={}),
            {"objects": Reason.NEW, "caption": Reason.REQUIRED},
        ),
    ],
)
def test_decide(given: ImageDocument, missing: dict[str, Reason]) -> None:
    assert decide(given, PLAN, NOW).missing == missing


def test_decide_keeps_the_order_of_requirements() -> None:
    decision = decide(ImageDocument({"_id": 1}, "a.jpg"), PLAN, NOW)
    assert list(decision.missing) == ["objects", "faces", "caption"]
    assert decision.source_ref == "a.jpg"


def test_plan_hash_depends_on_fingerprints_alone() -> None:
    reordered = Plan((Step("faces", "f1"), Step("objects", "o1", model="m"), Step("caption", "c1", ("objects",))))
    assert reordered.hash == PLAN.hash
    assert Plan((Step("objects", "o2"), Step("faces", "f1"), Step("caption", "c1"))).hash != PLAN.hash


def test_source_ref_tells_sources_apart() -> None:
    sources = ["a", "b", b"a", b"b", ObjectId("0" * 24), {"path": "a"}, {"url": "a"}, {"data": b"a"}, 5, "0" * 24]
    assert len({source_ref(source) for source in sources}) == len(sources)


def test_source_ref_is_the_same_for_the_same_bytes() -> None:
    assert source_ref(Binary(b"abc")) == source_ref(b"abc")
    assert source_ref({"a": 1, "b": 2}) == source_ref({"b": 2, "a": 1})

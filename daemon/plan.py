"""What a document lacks: a pure function of the document and the enabled enrichers."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from bson import Binary, ObjectId

from enrichers.contract import Enricher
from enrichers.registry import fingerprints

#: no retry is put off as far as this: one that is further away was set by a clock that was ahead, and is due
FARTHEST_RETRY = timedelta(days=2)


class Reason(StrEnum):
    """Why an enricher is missing from a document."""

    NEW = "new"  #: there is no run
    SOURCE = "source"  #: the source is not the one that was read
    FINGERPRINT = "fingerprint"  #: the enricher, its model or its settings changed
    REQUIRED = "required"  #: an answer that it builds on is newer or missing too
    REQUESTED = "requested"  #: somebody asked for it
    RETRY = "retry"  #: it failed, and its time to try again has come


@dataclass(frozen=True, slots=True)
class Step:
    """An enabled enricher as the plan knows it."""

    name: str
    fingerprint: str
    requires: tuple[str, ...] = ()
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The enabled enrichers with their fingerprints, each after those that it requires."""

    steps: tuple[Step, ...]

    @property
    def hash(self) -> str:
        """16 hex digits of a SHA-256 over names and fingerprints."""
        parts = [(step.name, step.fingerprint) for step in self.steps]
        return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()[:16]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps)

    @classmethod
    def of(cls, enrichers: Sequence[Enricher]) -> "Plan":
        """The plan that runs `enrichers`, which are in the order of their requirements."""
        prints = fingerprints(enrichers)
        return cls(tuple(Step(e.name, prints[e.name], e.requires, e.model) for e in enrichers))


@dataclass(frozen=True, slots=True)
class ImageDocument:
    """What enrichd reads of an image document.

    `key` is its documentKey; `source` the value of the source field, None where there is none; `enrichments` holds
    each enabled enricher's `run`, and the whole answer of those that others require.
    """

    key: Mapping[str, Any]
    source: Any
    enrichment: Mapping[str, Any] = field(default_factory=dict)
    enrichments: Mapping[str, Any] = field(default_factory=dict)

    def run(self, name: str) -> Mapping[str, Any] | None:
        answer = self.enrichments.get(name)
        run = answer.get("run") if isinstance(answer, Mapping) else None
        return run if isinstance(run, Mapping) else None

    def requested(self) -> Mapping[str, Any]:
        requested = self.enrichment.get("requested")
        return requested if isinstance(requested, Mapping) else {}


def source_ref(source: Any) -> str:
    """The reference that identifies a source: equal exactly where the same thing would be read.

    Bytes count by length and SHA-256; everything else by its value.
    """
    if isinstance(source, (bytes, Binary)):
        return f"binary:{len(source)}:{hashlib.sha256(source).hexdigest()}"
    if isinstance(source, ObjectId):
        return f"gridfs:{source}"
    if isinstance(source, str):
        return source
    if isinstance(source, Mapping):
        return json.dumps({key: source_ref(value) for key, value in source.items()}, sort_keys=True)
    return f"{type(source).__name__}:{source}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done for a document: the missing enrichers in the order to run them, each with its reason."""

    missing: Mapping[str, Reason] = field(default_factory=dict)
    source_ref: str | None = None

    @property
    def nothing(self) -> bool:
        return not self.missing


def decide(document: ImageDocument, plan: Plan, now: datetime) -> Decision:
    """Which enrichers `document` lacks under `plan` at the time `now` (aware, UTC)."""
    if document.source is None:
        return Decision()
    reference = source_ref(document.source)
    if document.enrichment.get("source_ref") != reference:
        return Decision({step.name: Reason.SOURCE for step in plan.steps}, reference)
    refused = document.enrichment.get("refused")
    if isinstance(refused, Mapping) and refused == {"plan": plan.hash, "requested": document.requested()}:
        return Decision({}, reference)
    if document.enrichment.get("state") == "unreadable":
        return Decision(_of_unreadable(document, plan, now), reference)
    missing: dict[str, Reason] = {}
    for step in plan.steps:
        reason = _reason(document, step, missing, now)
        if reason is not None:
            missing[step.name] = reason
    return Decision(missing, reference)


def _due(entry: Mapping[str, Any], now: datetime) -> bool:
    at = entry.get("next_attempt_at")
    return isinstance(at, datetime) and (at <= now or at > now + FARTHEST_RETRY)


def _is_requested(document: ImageDocument, name: str, run: Mapping[str, Any] | None) -> bool:
    token = document.requested().get(name)
    return token is not None and (run is None or run.get("request") != token)


def _of_unreadable(document: ImageDocument, plan: Plan, now: datetime) -> dict[str, Reason]:
    if _due(document.enrichment, now):
        return {step.name: Reason.RETRY for step in plan.steps}
    if any(_is_requested(document, step.name, document.run(step.name)) for step in plan.steps):
        return {step.name: Reason.REQUESTED for step in plan.steps}
    return {}


def _reason(document: ImageDocument, step: Step, missing: Mapping[str, Reason], now: datetime) -> Reason | None:
    run = document.run(step.name)
    if run is None:
        return Reason.NEW
    if run.get("fingerprint") != step.fingerprint:
        return Reason.FINGERPRINT
    if _is_requested(document, step.name, run):
        return Reason.REQUESTED
    if _due(run, now):
        return Reason.RETRY
    if any(name in missing or _newer(document.run(name), run) for name in step.requires):
        return Reason.REQUIRED
    return None


def _newer(required: Mapping[str, Any] | None, run: Mapping[str, Any]) -> bool:
    if required is None:
        return True
    theirs, ours = required.get("at"), run.get("at")
    return isinstance(theirs, datetime) and isinstance(ours, datetime) and theirs > ours

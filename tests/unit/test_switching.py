"""Switching a model makes exactly the affected answers stale: of the enricher that uses it and of those that build on
it."""

from collections.abc import Mapping
from typing import Any

import pytest

from enrichers import registry
from enrichers.catalogue import Catalogue
from enrichers.contract import Enricher

OTHER = {"provider": "url", "url": "https://example.org/other.onnx", "runtime": "onnx", "sha256": "ab" * 32}


def fingerprints(changes: Mapping[str, Mapping[str, Any]], entries: Mapping[str, Any]) -> dict[str, str]:
    catalogue = Catalogue.load(entries)
    return registry.fingerprints(registry.enabled(None, lambda name: changes.get(name, {}), catalogue))


def affected_by(name: str, classes: Mapping[str, type[Enricher]]) -> set[str]:
    """The enricher and all that require it, directly or by way of others."""
    found = {name}
    while more := {other for other, kind in classes.items() if set(kind.requires) & found} - found:
        found |= more
    return found


@pytest.mark.parametrize(
    ("enricher", "setting", "entry"),
    [
        ("objects", "model", {**OTHER, "task": "objects", "form": "yolox"}),
        ("faces", "embedding", {**OTHER, "task": "embedding", "options": {"size": 112}}),
        ("faces", "detector", {**OTHER, "task": "faces", "form": "yunet"}),
    ],
)
def test_another_model(enricher: str, setting: str, entry: dict[str, Any]) -> None:
    classes = registry.installed()
    before = fingerprints({}, {"other": entry})
    after = fingerprints({enricher: {setting: "other"}}, {"other": entry})
    assert {name for name in before if before[name] != after[name]} == affected_by(enricher, classes)


def test_other_weights_of_a_shared_network_touch_all_that_share_it() -> None:
    classes = registry.installed()
    pinned = {"task": "tags", **OTHER, "runtime": "litert", "parts": {"labels": "efficientnet_labels"}}
    before, after = fingerprints({}, {}), fingerprints({}, {"efficientnet_lite3": pinned})
    changed = {name for name in before if before[name] != after[name]}
    assert {"tags", "similarity"} <= changed
    assert changed == affected_by("tags", classes) | affected_by("similarity", classes)


def test_an_entry_that_nobody_uses_changes_nothing() -> None:
    assert fingerprints({}, {}) == fingerprints({}, {"other": {**OTHER, "task": "objects"}})

"""The registry: which enrichers there are, in which order, with which settings and fingerprints."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import pytest

from enrichers import registry
from enrichers.catalogue import Catalogue
from enrichers.contract import Enricher, Failure, Loader, Result, Weights
from enrichers.errors import EnricherUnknown, SettingInvalid
from enrichers.image import Image


class Plain(Enricher):
    version = 1
    defaults: Mapping[str, Any] = {"threshold": 0.5, "model": "centerface", "limit": 10, "on": True, "some": None}

    def load(self, loader: Loader) -> None: ...

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        return [Result({}) for _ in images]


class Eyes(Plain):
    name = "eyes"

    def weights(self) -> tuple[Weights, ...]:
        return self.catalogue.weights(self.settings["model"])


class Nose(Plain):
    name = "nose"


class Brain(Plain):
    name = "brain"
    requires = ("eyes",)


class Hen(Plain):
    name = "hen"
    requires = ("egg",)


class Egg(Plain):
    name = "egg"
    requires = ("hen",)


@pytest.fixture(autouse=True)
def points(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"brain": "Brain", "eyes": "Eyes", "nose": "Nose", "hen": "Hen", "egg": "Egg", "wrong": "Nose", "gone": "X"}
    found = {n: metadata.EntryPoint(n, f"{__name__}:{kind}", registry.GROUP) for n, kind in names.items()}
    monkeypatch.setattr(registry, "_points", lambda: found)


def none(_: str) -> dict[str, Any]:
    return {}


def test_what_others_require_comes_first() -> None:
    assert [e.name for e in registry.enabled(["brain", "nose", "eyes"], none)] == ["eyes", "brain", "nose"]


def test_an_unknown_enricher_names_the_nearest() -> None:
    with pytest.raises(EnricherUnknown, match="did you mean 'eyes'"):
        registry.enabled(["eye"], none)


@pytest.mark.parametrize("name", ["wrong", "gone"])  # another enricher's class; a class that is not there
def test_a_broken_entry_point_is_named(name: str) -> None:
    with pytest.raises(EnricherUnknown, match=name):
        registry.enabled([name], none)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["brain"], "brain requires eyes"), (["hen", "egg"], "require each other")],
)
def test_what_cannot_be_ordered_is_said(names: list[str], message: str) -> None:
    with pytest.raises(SettingInvalid, match=message):
        registry.enabled(names, none)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"treshold": 0.3}, "did you mean 'threshold'"),
        ({"threshold": "high"}, "must be a float"),
        ({"limit": 2.5}, "must be a int"),
        ({"limit": True}, "must be a int"),  # a bool is an int in Python, and no number here
        ({"on": 1}, "must be a bool"),
    ],
)
def test_a_wrong_setting_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingInvalid, match=message):
        registry.enabled(["eyes"], lambda _: given)


def test_settings_are_filled_from_the_defaults() -> None:
    given = {"threshold": 1, "some": "thing"}  # an int where a float is the default; anything where None is
    (eyes,) = registry.enabled(["eyes"], lambda _: given)
    assert eyes.settings == {**Plain.defaults, **given}


def prints(changes: Mapping[str, Mapping[str, Any]], catalogue: Catalogue | None = None) -> dict[str, str]:
    made = registry.enabled(["eyes", "nose", "brain"], lambda name: changes.get(name, {}), catalogue)
    return registry.fingerprints(made)


@pytest.mark.parametrize(
    ("changes", "affected"),
    [
        ({}, set()),
        ({"eyes": {"model": "dlib"}}, {"eyes", "brain"}),  # brain reads what eyes answers
        ({"eyes": {"threshold": 0.4}}, {"eyes", "brain"}),
        ({"nose": {"threshold": 0.4}}, {"nose"}),
        ({"brain": {"limit": 3}}, {"brain"}),
    ],
)
def test_a_change_alters_exactly_the_affected_fingerprints(
    changes: Mapping[str, Mapping[str, Any]], affected: set[str]
) -> None:
    before, after = prints({}), prints(changes)
    assert {name for name in before if before[name] != after[name]} == affected


def test_other_weights_under_the_same_name_alter_the_fingerprint() -> None:
    entry = {"task": "faces", "runtime": "onnx", "provider": "url", "url": "https://example.org/f", "sha256": "ab" * 32}
    before, after = prints({}), prints({}, Catalogue.load({"centerface": entry}))
    assert {name for name in before if before[name] != after[name]} == {"eyes", "brain"}


def test_a_users_entry_can_be_named_by_a_setting() -> None:
    entry = {"task": "faces", "runtime": "onnx", "provider": "url", "url": "https://example.org/f", "sha256": "ab" * 32}
    assert prints({"eyes": {"model": "mine"}}, Catalogue.load({"mine": entry}))["eyes"]

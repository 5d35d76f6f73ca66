"""Finds the installed enrichers and makes those that are enabled."""

from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

from enrichers.catalogue import Catalogue, nearest
from enrichers.contract import Enricher
from enrichers.errors import EnricherUnknown, SettingInvalid

#: entry-point group of enrichers, built-in and third-party alike
GROUP = "enrichd.enrichers"


def installed() -> dict[str, type[Enricher]]:
    """Every installed enricher's class by its name. Raises EnricherUnknown for one that cannot be imported."""
    return {name: _class(point) for name, point in sorted(_points().items())}


def _points() -> dict[str, metadata.EntryPoint]:
    """The first of a name on the path wins, as with imports."""
    points: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=GROUP):
        points.setdefault(point.name, point)
    return points


def _class(point: metadata.EntryPoint) -> type[Enricher]:
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise EnricherUnknown(f"the enricher {point.name!r} ({point.value}) cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Enricher) and found.name == point.name):
        raise EnricherUnknown(f"{point.value} is no enricher of the name {point.name!r}")
    return found


def enabled(
    names: Sequence[str] | None,
    settings: Callable[[str], Mapping[str, Any]],
    catalogue: Catalogue | None = None,
) -> list[Enricher]:
    """One instance of each named enricher (None: every installed one), those that others require first.

    `settings` gives an enricher's table of the configuration. Raises EnricherUnknown, and SettingInvalid for a
    setting that is unknown or of another type than its default, or where a required enricher is not enabled.
    """
    points = _points()
    chosen = sorted(points) if names is None else list(dict.fromkeys(names))
    for name in chosen:
        if name not in points:
            raise EnricherUnknown(f"no enricher is called {name!r}{nearest(name, points)}")
    classes = {name: _class(points[name]) for name in chosen}
    ordered: list[str] = []
    for name in classes:
        _place(name, classes, ordered, ())
    return [_make(classes[name], settings(name), catalogue) for name in ordered]


def _place(name: str, classes: Mapping[str, type[Enricher]], ordered: list[str], above: tuple[str, ...]) -> None:
    """Appends an enricher to `ordered`, after everything that it requires."""
    if name in ordered:
        return
    if name in above:
        raise SettingInvalid(f"these enrichers require each other: {', '.join(above)}")
    for required in classes[name].requires:
        if required not in classes:
            raise SettingInvalid(f"{name} requires {required}, which is not enabled; add it to enrichers.enabled")
        _place(required, classes, ordered, (*above, name))
    ordered.append(name)


def _make(kind: type[Enricher], given: Mapping[str, Any], catalogue: Catalogue | None) -> Enricher:
    for key, value in given.items():
        where = f"enrichers.{kind.name}.{key}"
        if key not in kind.defaults:
            raise SettingInvalid(f"unknown setting {where}{nearest(key, kind.defaults)}")
        if not _fits(value, kind.defaults[key]):
            wanted = type(kind.defaults[key]).__name__
            raise SettingInvalid(f"{where} is {value!r}, a {type(value).__name__}; it must be a {wanted}")
    enricher = kind({**kind.defaults, **given})
    if catalogue is not None:
        enricher.catalogue = catalogue
    return enricher


def _fits(value: Any, default: Any) -> bool:
    """Whether a value has the type of the default; a default of None takes anything, a float takes an int."""
    if default is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, (tuple, list)):
        return isinstance(value, (tuple, list))
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def fingerprints(enrichers: Sequence[Enricher]) -> dict[str, str]:
    """Each enricher's fingerprint by name. `enrichers` are in the order that `enabled` gives them."""
    found: dict[str, str] = {}
    for enricher in enrichers:
        found[enricher.name] = enricher.fingerprint(found)
    return found

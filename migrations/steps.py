"""Runs the numbered steps in order and remembers the last one in the database."""

import importlib
import pkgutil
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import migrations
from daemon.store.collections import Collections
from daemon.store.state import State
from enrichers.errors import EnrichdError


class SchemaNewer(EnrichdError):
    """The database was migrated by a newer enrichd; run that version."""


class SchemaOlder(EnrichdError):
    """The database needs migrations; `enrichd migrate up` runs them."""


@dataclass(frozen=True, slots=True)
class Step:
    """One migration: `up` brings a database from the schema `version - 1` to `version`, and may be run twice."""

    version: int
    title: str
    up: Callable[[Collections], Awaitable[None]]


def steps() -> list[Step]:
    """All steps of this version of enrichd, in order."""
    found = []
    for module in pkgutil.iter_modules(migrations.__path__):
        if match := re.fullmatch(r"m(\d{4})_\w+", module.name):
            loaded = importlib.import_module(f"migrations.{module.name}")
            found.append(Step(int(match[1]), (loaded.__doc__ or "").strip().splitlines()[0], loaded.up))
    return sorted(found, key=lambda step: step.version)


def newest() -> int:
    """The schema version that this enrichd needs."""
    return steps()[-1].version


async def pending(collections: Collections) -> list[Step]:
    """The steps that have not run. Raises SchemaNewer."""
    version = await State(collections).schema_version()
    if version > newest():
        raise SchemaNewer(
            f"The database has schema {version}; this enrichd knows schemas up to {newest()}. Run a newer enrichd."
        )
    return [step for step in steps() if step.version > version]


async def migrate(collections: Collections) -> list[Step]:
    """Runs the pending steps; returns them."""
    done = await pending(collections)
    for step in done:
        await step.up(collections)
        await State(collections).set_schema_version(step.version)
    return done


async def require_current(collections: Collections) -> None:
    """A database that enrichd has never seen is migrated; one that lags behind raises SchemaOlder, one that is ahead
    SchemaNewer."""
    waiting = await pending(collections)
    if waiting and waiting[0].version == steps()[0].version:
        await migrate(collections)
    elif waiting:
        raise SchemaOlder

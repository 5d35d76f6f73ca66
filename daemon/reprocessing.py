"""Asks for enrichers to be run again on documents that were enriched before."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bson import ObjectId, json_util

from daemon.config import Config
from daemon.fetch import Fetcher
from daemon.store.collections import Collections
from daemon.store.images import Images
from daemon.store.reports import CHUNK, Reports
from daemon.store.state import State
from enrichers.errors import EnrichdError, EnricherUnknown


class QueryInvalid(EnrichdError):
    """The query is not a JSON object."""


class NoPlan(EnrichdError):
    """Nothing was enriched here yet: `enrichd run` makes the first plan."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: how many documents it is for, which enrichers, and the token that their runs will carry."""

    documents: int
    names: tuple[str, ...]
    token: ObjectId


def parse_query(text: str) -> dict[str, Any]:
    """A MongoDB query in (extended) JSON. Raises QueryInvalid."""
    try:
        query = json_util.loads(text)
    except ValueError as error:
        raise QueryInvalid(f"The query is not valid JSON: {error}") from None
    if not isinstance(query, dict):
        raise QueryInvalid(f"The query is not a JSON object: {text}")
    return query


async def _names(collections: Collections, wanted: Sequence[str] | None) -> tuple[str, ...]:
    stored = await State(collections).plan()
    if stored is None:
        raise NoPlan
    for name in wanted or ():
        if name not in stored.plan.names:
            raise EnricherUnknown(f"The active plan has no enricher {name}; it has {', '.join(stored.plan.names)}.")
    return tuple(dict.fromkeys(wanted)) if wanted else stored.plan.names


def _images(config: Config, collections: Collections) -> Images:
    return Images(collections, config.images.source, config.images.filter)


def _reports(config: Config, collections: Collections) -> Reports:
    return Reports(collections, config.images.source, config.images.filter)


async def request(
    config: Config, collections: Collections, query: Mapping[str, Any], wanted: Sequence[str] | None, *, dry_run: bool
) -> Asked:
    """Asks for `wanted` (None: all of the active plan) on the documents that `query` finds. Raises NoPlan or
    EnricherUnknown."""
    names, token = await _names(collections, wanted), ObjectId()
    if dry_run:
        return Asked(await _reports(config, collections).count(query), names, token)
    return Asked(await _images(config, collections).request(query, names, token), names, token)


async def request_failed(config: Config, collections: Collections, ids: Sequence[Any] | None) -> int:
    """Asks for what failed, on the documents with `ids` or on all; how many documents there are. Raises NoPlan."""
    names, token = await _names(collections, None), ObjectId()
    images = _images(config, collections)
    failed = [entry async for entry in _reports(config, collections).failed(names, ids)]
    alike: dict[tuple[str, ...], list[Any]] = defaultdict(list)
    for entry in failed:
        alike[entry.names].append(entry.id)
    for lacking, affected in alike.items():  # one write for each document, or a daemon would try after each of them
        for start in range(0, len(affected), CHUNK):
            await images.request({"_id": {"$in": affected[start : start + CHUNK]}}, lacking, token)
    return len(failed)


async def changed_ids(config: Config, collections: Collections, query: Mapping[str, Any]) -> list[Any]:
    """The documents that `query` finds whose source no longer has the bytes that were read; a source that cannot be
    read any more counts as changed."""
    reports = _reports(config, collections)
    fetcher = Fetcher(config.images, collections)
    try:
        return [
            entry.id
            async for entry in reports.read_hashes(query)
            if await _sha256(fetcher, entry.source) != entry.sha256
        ]
    finally:
        await fetcher.close()


async def _sha256(fetcher: Fetcher, source: Any) -> str | None:
    try:
        found = await fetcher.fetch(source)
        if isinstance(found, Path):
            return await asyncio.to_thread(_file_sha256, found)
        return hashlib.sha256(found).hexdigest()
    except (EnrichdError, OSError):
        return None


def _file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

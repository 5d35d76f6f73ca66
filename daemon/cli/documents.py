"""Commands about the image documents: add, wait, status, reprocess, failures, retry and verify."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.options import Json, as_document, configured, console, print_json, print_table, run_async
from daemon.plural import counted
from enrichers.errors import EnrichdError

if TYPE_CHECKING:
    from daemon.config import Config
    from daemon.store.collections import Collections
    from daemon.store.reports import Reports

#: seconds between two looks while waiting; a look never takes more than a fifth of the time
POLL_S = 0.25
#: seconds between two lines of progress where no terminal shows a bar
REPORT_S = 5.0

Timeout = Annotated[float | None, typer.Option("--timeout", min=0, help="Seconds to wait at most.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the documents are finished.")]
Enrichers = Annotated[list[str] | None, typer.Option("--enricher", "-e", help="Enricher; repeatable. Default: all.")]
Limit = Annotated[int, typer.Option("--limit", min=0, help="Documents to show at most; 0: all.")]


class WaitedTooLong(EnrichdError):
    """Not everything was finished in the time given."""


class NoSuchDocument(EnrichdError):
    """There is no image document with this id."""


def register(app: typer.Typer) -> None:
    for command in (add, wait, status, reprocess, failures, retry, verify):
        app.command()(command)


def open_reports(config: "Config", collections: "Collections") -> "Reports":
    from daemon.store.reports import Reports

    return Reports(collections, config.images.source, config.images.filter)


async def wait_until_none(
    collections: "Collections", count: Callable[[], Awaitable[int]], timeout_s: float | None
) -> None:
    """Returns when `count` is 0, showing a progress bar on a terminal, else a line every few seconds; warns where no
    daemon runs. Raises WaitedTooLong."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from daemon.leases import live_daemons
    from daemon.store.leases import LeaseStore

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    started = time.monotonic()
    total: int | None = None
    if await count() and not await live_daemons(LeaseStore(collections)):
        console().print("No daemon runs: nothing is worked on until `enrichd run` starts one.", style="yellow")
    output, reported = console(), started
    with Progress(*columns, console=output, transient=True, disable=not output.is_terminal) as progress:
        task = progress.add_task("Waiting", total=None)
        while True:
            asked = time.monotonic()
            left = await count()
            total = max(total or 0, left)
            progress.update(task, total=total, completed=total - left)
            if left == 0:
                return
            if not output.is_terminal and time.monotonic() - reported >= REPORT_S:
                reported = time.monotonic()
                print(f"{total - left} of {counted(total, 'document')} finished", file=sys.stderr, flush=True)
            if timeout_s is not None and time.monotonic() - started >= timeout_s:
                raise WaitedTooLong(
                    f"{left} of {counted(total, 'document')} not finished after {timeout_s:g} s; does the daemon run?"
                )
            await asyncio.sleep(max(POLL_S, 4 * (time.monotonic() - asked)))


async def report_finished(reports: "Reports", ids: Sequence[Any] | None, as_json: bool, **more: Any) -> None:
    """Prints how the documents ended. Exit code 1 unless all of them are complete."""
    states = await reports.count_states(ids)
    if as_json:
        print_json({**more, "states": states})
    else:
        print(", ".join(f"{number} {state}" for state, number in states.items() if number) or "no documents")
    if sum(states.values()) != states["complete"]:
        if not as_json:
            print("`enrichd failures` tells why.")
        raise typer.Exit(1)


@configured
def add(
    config: "Config",
    paths: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.", show_default=False)],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Folders below the folders too.")] = False,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Insert a document for each image file that has none yet.

    A file is known by its source: its path below the first of images.roots, or its absolute path below another one.
    Adding it again changes nothing.
    """
    from rich.progress import track

    from daemon.addition import NothingToAdd, find_images, source_of
    from daemon.connection import connect
    from daemon.store.reports import CHUNK

    found = find_images(paths, recursive)
    if not found.files:
        hint = "" if recursive else " (--recursive looks into the folders below)"
        raise NothingToAdd(f"There is no image to add{hint}; {counted(found.skipped, 'other file')} skipped.")
    sources = [source_of(file, config.images.roots) for file in found.files]

    async def work() -> None:
        async with connect(config) as collections:
            reports = open_reports(config, collections)
            ids: list[Any] = []
            new = 0
            chunks = range(0, len(sources), CHUNK)
            output = console()
            for start in track(chunks, "Adding", console=output, transient=True, disable=not output.is_terminal):
                some, some_new = await reports.add(sources[start : start + CHUNK])
                ids += some
                new += some_new
            counts = {"added": new, "known": len(ids) - new, "skipped": found.skipped}
            if not wait:
                if as_json:
                    print_json(counts)
                else:
                    print(
                        f"{new} added, {counts['known']} known already, {counted(found.skipped, 'other file')} skipped"
                    )
                return
            await wait_until_none(collections, lambda: reports.unfinished(ids), timeout)
            await report_finished(reports, ids, as_json, **counts)

    run_async(work())


@configured
def wait(
    config: "Config",
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of documents.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All documents.")] = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Wait until documents are finished. Exit code 1 unless all of them are complete."""
    if bool(ids) == every:
        raise typer.BadParameter("give ids or --all")
    from daemon.connection import connect

    async def work() -> None:
        async with connect(config) as collections:
            reports = open_reports(config, collections)
            chosen = None if every else [await _existing(reports, text) for text in ids or []]
            await wait_until_none(collections, lambda: reports.unfinished(chosen), timeout)
            await report_finished(reports, chosen, as_json)

    run_async(work())


async def _existing(reports: "Reports", text: str) -> Any:
    found = await reports.find_id(candidates_of(text))
    if found is None:
        raise NoSuchDocument(f"There is no image document with the id {text}.")
    return found


def candidates_of(text: str) -> list[Any]:
    """What an id that was typed may stand for: an ObjectId, extended JSON, a number, or the text itself."""
    from bson import ObjectId, json_util

    candidates: list[Any] = [text]
    if ObjectId.is_valid(text):
        candidates.append(ObjectId(text))
    with suppress(ValueError):
        candidates.append(json_util.loads(text))
    return candidates


@configured
def status(config: "Config", as_json: Json = False) -> None:
    """Print how many documents are in which state, and what the daemon runs."""
    from daemon.config import Mongo
    from daemon.connection import connect
    from daemon.leases import live_daemons
    from daemon.store.leases import LeaseStore

    async def work() -> None:
        async with connect(config) as collections:
            overview = await open_reports(config, collections).overview()
            daemons = await live_daemons(LeaseStore(collections))
            host, port = (await collections.database.client.address) or ("?", 0)
        values = {
            "server": Mongo(uri=config.mongo.uri).masked_uri or f"embedded, {host}:{port}",
            "collection": f"{config.mongo.database}.{config.mongo.collection}",
            "daemons": [{"host": daemon.host, "pid": daemon.pid, "since": daemon.since} for daemon in daemons],
            **overview.as_dict(),
        }
        if as_json:
            print_json(values)
            return
        states = ", ".join(f"{number} {state}" for state, number in overview.states.items() if number) or "none"
        joined = [daemon.since for daemon in daemons if daemon.since is not None]
        since = f", since {_time(min(joined))}" if joined else ""
        running = f"{len(daemons)}{since}" if daemons else "none; `enrichd run` starts one"
        plan = (
            f"{overview.plan}: {', '.join(overview.enrichers)}"
            if overview.plan
            else "none yet; `enrichd run` makes one"
        )
        rows = [
            ["server", values["server"]],
            ["collection", values["collection"]],
            ["daemon", running],
            ["documents", overview.documents],
            ["states", states],
            [
                "to be looked at",
                f"{overview.unfinished}: {overview.new} new, {overview.stale} stale or asked for again",
            ],
            ["without source", overview.without_source],
            ["tried again later", overview.retries],
            ["faces", overview.faces],
            ["faces that wait", f"{overview.faces_waiting} for the next recluster; `enrichd recluster` does it now"],
            ["identities", f"{overview.identities}, {overview.named} of them with a name"],
            ["plan", plan],
        ]
        print_table(None, ["", ""], rows)

    run_async(work())


@configured
def reprocess(
    config: "Config",
    enricher: Enrichers = None,
    query: Annotated[str, typer.Option("--query", "-q", metavar="JSON", help="Which documents; default: all.")] = "{}",
    changed: Annotated[
        bool, typer.Option("--changed", help="Only where the file is not the one that was read.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many there are.")] = False,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Have enrichers run again on documents that have their answers already."""
    from daemon.connection import connect
    from daemon.reprocessing import changed_ids, parse_query, request

    selection = parse_query(query)

    async def work() -> None:
        async with connect(config) as collections:
            chosen = selection
            if changed:
                ids = await changed_ids(config, collections, selection)
                chosen = {"_id": {"$in": ids}}
            asked = await request(config, collections, chosen, enricher, dry_run=dry_run)
            values = {"documents": asked.documents, "enrichers": list(asked.names), "requested": not dry_run}
            if wait and not dry_run:
                reports = open_reports(config, collections)
                await wait_until_none(collections, lambda: reports.unanswered(asked.token, asked.names), timeout)
            if as_json:
                print_json(values)
            elif not asked.documents:
                print("No file is changed." if changed else "The query matches no document.")
            else:
                verb = "would run" if dry_run else "ran" if wait else "will run"
                print(f"{', '.join(asked.names)} {verb} again on {counted(asked.documents, 'document')}")

    run_async(work())


@configured
def failures(config: "Config", limit: Limit = 50, as_json: Json = False) -> None:
    """List the documents that are not complete, with the reasons."""
    from daemon.connection import connect

    async def work() -> None:
        async with connect(config) as collections:
            troubles = [trouble async for trouble in open_reports(config, collections).troubles(limit or None)]
        if as_json:
            print_json([as_document(trouble) for trouble in troubles])
            return
        if not troubles:
            print("no failures")
            return
        rows = [
            [t.id, t.source, t.state, t.enricher, f"{t.type}: {t.message}", t.attempts, _time(t.next_attempt_at)]
            for t in troubles
        ]
        print_table(None, ["id", "source", "state", "enricher", "reason", "attempts", "next attempt"], rows)

    run_async(work())


def _time(at: Any) -> str:
    return "none" if at is None else at.strftime("%Y-%m-%d %H:%M:%S UTC")


@configured
def retry(
    config: "Config",
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Documents; default: all failed.")] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Try what failed again now, also what would not be tried again by itself."""
    from daemon.connection import connect
    from daemon.reprocessing import request_failed

    async def work() -> None:
        async with connect(config) as collections:
            reports = open_reports(config, collections)
            chosen = [await _existing(reports, text) for text in ids] if ids else None
            requested = await request_failed(config, collections, chosen)
            if wait:
                await wait_until_none(collections, lambda: reports.unfinished(chosen), timeout)
                await report_finished(reports, chosen, as_json, requested=requested)
            elif as_json:
                print_json({"requested": requested})
            else:
                print(f"{counted(requested, 'document')} {'is' if requested == 1 else 'are'} tried again")

    run_async(work())


@configured
def verify(config: "Config", as_json: Json = False) -> None:
    """Check that every document is complete or explained and every face owned; exit code 1 and a list otherwise."""
    from daemon.connection import connect
    from daemon.verification import verify as look

    async def work() -> None:
        async with connect(config) as collections:
            verified = await look(config, collections)
        violations = verified.violations
        checked = {name: getattr(verified, name) for name in ("documents", "faces", "identities")}
        if as_json:
            print_json({"checked": checked, "violations": [as_document(violation) for violation in violations]})
        else:
            if violations:
                print_table(None, ["what", "id", "why"], [[v.kind, v.id, v.message] for v in violations])
            looked = (
                f"{counted(verified.documents, 'document')}, {counted(verified.faces, 'face')} and "
                f"{counted(verified.identities, 'identity', 'identities')} checked"
            )
            fine = "nothing lost, stale, duplicated or orphaned"
            print(f"{looked}: {counted(len(violations), 'violation') if violations else fine}")
        if violations:
            raise typer.Exit(1)

    run_async(work())

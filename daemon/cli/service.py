"""Commands about the daemon itself: run, demo, recluster, activate, migrate and doctor."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.options import Json, configured, print_json, print_table, run_async
from daemon.plural import counted
from enrichers.errors import EnrichdError

if TYPE_CHECKING:
    from daemon.config import Config
    from daemon.store.collections import Document

Full = Annotated[bool, typer.Option("--full", help="Cluster all faces, not only what is new since the last time.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would change.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class ActivationUnconfirmed(EnrichdError):
    """Documents would become stale and nobody can be asked; --yes says that it is wanted."""


#: what a recluster's changes count
FACE_CHANGES = {"moved", "assigned", "released"}
#: how the doctor's findings are shown
MARKS = {"ok": "[green]ok[/]  ", "warning": "[yellow]warn[/]", "failed": "[red]FAIL[/]"}
OF_FACES, OF_IDENTITIES = ("face", "faces"), ("identity", "identities")


def register(app: typer.Typer) -> None:
    for command in (run, demo, recluster, activate, doctor):
        app.command()(command)
    migrate = typer.Typer(help="The schema of enrichd's own collections.", no_args_is_help=True)
    migrate.command(name="status")(migrate_status)
    migrate.command(name="up")(migrate_up)
    app.add_typer(migrate, name="migrate")


@configured
def run(config: "Config", yes: Yes = False) -> None:
    """Run the daemon until it is stopped (SIGTERM, Ctrl-C).

    Without mongo.uri it starts the embedded server beside it.
    """
    from daemon import app, logs
    from daemon.logs import READY

    logs.set_up(config.log)

    def confirm(waiting: int) -> bool:
        return sys.stdin.isatty() and typer.confirm(
            f"{counted(waiting, 'document')} in the collection already. Start on {'it' if waiting == 1 else 'them'}?",
            err=True,
        )

    def ready(uri: str) -> None:
        where = f"{uri}, its data in {config.embedded.folder}" if config.mongo.uri is None else config.mongo.masked_uri
        print(f"{READY}: {config.mongo.database}.{config.mongo.collection} on {where}", file=sys.stderr)
        shown = config.mongo.masked_uri or uri
        print(
            f'Insert images with `enrichd add FOLDER --recursive`; connect with "{shown}"', file=sys.stderr, flush=True
        )

    run_async(app.run(config, yes=yes, confirm=confirm, ready=ready))


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where photos, data and logs go; emptied first.")] = Path(
        ".demo"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Leave server and daemon running until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show what enrichd does, on photos that published packages carry."""
    from daemon.demo import run_demo

    if not run_demo(folder, keep=keep, as_json=as_json):
        raise typer.Exit(1)


@configured
def recluster(config: "Config", dry_run: DryRun = False, full: Full = False, as_json: Json = False) -> None:
    """Group the faces into identities anew; names and decisions of people stay."""
    from dataclasses import asdict

    from daemon.connection import connect
    from daemon.identities import recluster as regroup

    def who(end: "Document | None") -> str:
        if end is None:
            return "nobody"
        return "somebody new" if end["new"] else f"{end['name'] or 'no name yet'} ({end['identity']})"

    async def work() -> None:
        async with connect(config) as collections:
            report = await regroup(collections, config.identities, dry_run=dry_run, full=full)
        values = asdict(report)
        if as_json:
            print_json({**values, "dry_run": dry_run})
        else:
            moves = [[move["faces"], who(move["from"]), who(move["to"])] for move in values["moves"]]
            changes = ", ".join(
                f"{counted(value, *OF_FACES if name in FACE_CHANGES else OF_IDENTITIES)} {name}"
                for name, value in values["changes"].items()
                if value
            )
            looked = "all faces" if report.full else "the new faces and what lies near them"
            verb = "would be" if dry_run else "are"
            print(
                f"Looked at {looked} in {report.seconds:.1f} s: {counted(report.faces, 'face')} {verb} grouped into "
                f"{counted(report.identities, 'identity', 'identities')}, {report.alone} of them into none."
            )
            print(f"{'It would change' if dry_run else 'It changed'}: {changes or 'nothing'}")
            if moves:
                print_table("\nWho goes where", ["faces", "from", "to"], moves)

    run_async(work())


@configured
def activate(config: "Config", yes: Yes = False, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Make the enabled enrichers and their settings the plan; tells how many documents become stale."""
    from daemon.activation import count_affected, difference
    from daemon.app import Setup, open_images
    from daemon.clock import utc_now
    from daemon.connection import connect
    from daemon.plan import Plan
    from daemon.store.state import State
    from migrations.steps import require_current

    async def work() -> None:
        setup = Setup.of(config)
        async with connect(config) as collections:
            await require_current(collections)
            state, images = State(collections), open_images(config, collections)
            stored = await state.plan()
            change = difference(stored.plan if stored else Plan(()), setup.plan)
            states = {} if change.nothing else await count_affected(images, stored)
            affected = sum(states.values())
            becomes_stale = f"{counted(affected, 'document')} {'becomes' if affected == 1 else 'become'} stale"
            if not as_json:
                by_state = ", ".join(f"{count} {state}" for state, count in states.items())
                stale = becomes_stale + (f" ({by_state})" if by_state else "")
                print("nothing changes" if change.nothing else f"{change}; {stale}")
            activated = not change.nothing and not dry_run
            if activated:
                if affected and not yes:
                    if not sys.stdin.isatty():
                        raise ActivationUnconfirmed(f"{becomes_stale}; `enrichd activate --yes` does it.")
                    typer.confirm("Activate?", abort=True, err=True)
                stored = await state.activate(setup.plan, utc_now())
        if as_json:
            print_json(
                {
                    "added": change.added,
                    "removed": change.removed,
                    "changed": change.changed,
                    "stale": affected,
                    "activated": activated,
                    "plan": stored.number if stored else None,
                }
            )
        elif activated and stored:
            print(
                f"plan {stored.number} is active; a daemon that runs ends itself within seconds: start it again "
                "(`enrichd run`; a service manager does so), and it brings the documents up to date"
            )

    run_async(work())


@configured
def migrate_status(config: "Config", as_json: Json = False) -> None:
    """Tell which migrations have run; exit code 1 if any has not."""
    from daemon.connection import connect
    from migrations.steps import pending, steps

    async def work() -> None:
        async with connect(config) as collections:
            waiting = {step.version for step in await pending(collections)}
        if as_json:
            print_json([{"version": s.version, "title": s.title, "done": s.version not in waiting} for s in steps()])
        else:
            rows = [[s.version, s.title, "pending" if s.version in waiting else "done"] for s in steps()]
            print_table(None, ["step", "", "state"], rows)
        if waiting:
            raise typer.Exit(1)

    run_async(work())


@configured
def migrate_up(config: "Config", as_json: Json = False) -> None:
    """Run the migrations that have not run."""
    from daemon.connection import connect
    from migrations.steps import migrate

    async def work() -> None:
        async with connect(config) as collections:
            done = await migrate(collections)
        if as_json:
            print_json([{"version": step.version, "title": step.title} for step in done])
        else:
            print("\n".join(f"{step.version}: {step.title}" for step in done) or "nothing to do")

    run_async(work())


@configured
def doctor(config: "Config", as_json: Json = False) -> None:
    """Check everything the daemon needs, and say what to do about what is missing; exit code 1 if a check fails."""
    from dataclasses import asdict

    from rich.console import Console

    from daemon.doctor import examine

    findings = run_async(examine(config))
    well = all(finding.state != "failed" for finding in findings)
    if as_json:
        print_json({"ok": well, "checks": [asdict(finding) for finding in findings]})
    else:
        output = Console(highlight=False)
        for finding in findings:
            output.print(f"{MARKS[finding.state]} {finding.check:<15} {finding.message}", soft_wrap=True)
            if finding.remedy:
                output.print(f"     {'':<15} → {finding.remedy}", soft_wrap=True)
    if not well:
        raise typer.Exit(1)

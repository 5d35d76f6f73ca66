"""`enrichd models`: what models there are, and their weights in the cache."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.options import Json, configured, console, print_json, print_table
from daemon.plural import counted

if TYPE_CHECKING:
    from daemon.config import Config
    from enrichers.catalogue import Entry
    from enrichers.weights import ModelStore

app = typer.Typer(help="The model store: list, pull and verify weights.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(help="Models; default: those that the enabled enrichers need.")]
Task = Annotated[str | None, typer.Option("--task", help="Only models of this task, e.g. objects.")]


@app.command(name="list")
@configured
def list_models(
    config: "Config",
    task: Task = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that no enabled enricher needs.")] = False,
    as_json: Json = False,
) -> None:
    """List the models that the enabled enrichers need and whether their weights are in the cache."""
    store = _store(config)
    needed = _needed(config)
    rows = [_described(store, entry, needed) for entry in store.catalogue if task in (None, entry.task)]
    if as_json:
        print_json(rows)
        return
    total = len(rows)
    if not everything and task is None:
        rows = [row for row in rows if row["needed"]]
    columns = ["model", "task", "runtime", "size", "licence", "cache", "source"]
    print_table(
        None,
        columns,
        [
            [
                f"{row['name']} *" if row["needed"] else row["name"],
                row["task"],
                row["runtime"],
                size_text(row["bytes"]),
                row["licence"] + (" (restricted)" if row["restricted"] else ""),
                "yes" if row["cached"] else "no",
                row["source"],
            ]
            for row in rows
        ],
    )
    if len(rows) < total:
        console().print(f"{counted(total - len(rows), 'more model')} in the catalogue; --all lists everything.")
    else:
        console().print("* needed by the enabled enrichers")


def size_text(size: int | None) -> str:
    """Bytes in the unit that suits them; nothing where they are not known."""
    if not size:
        return ""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


@app.command()
@configured
def pull(config: "Config", names: Names = None, as_json: Json = False) -> None:
    """Fetch weights that are not in the cache, with the package client of this environment."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    store = _store(config)
    wanted = names or _needed(config)
    missing = store.missing(wanted)
    columns, output = (TextColumn("{task.description}"), BarColumn(), DownloadColumn()), console()
    with Progress(*columns, console=output, transient=True, disable=not output.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def report(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        store.pull_all(wanted, report)
    if as_json:
        print_json({"pulled": missing, "models": sorted(wanted), "folder": store.cache})
    elif missing:
        print(f"Fetched {', '.join(missing)} into {store.cache}.")
    else:
        print(f"Nothing to fetch: {counted(len(wanted), 'model')} in {store.cache}.")


@app.command()
@configured
def verify(config: "Config", names: Names = None, as_json: Json = False) -> None:
    """Compare the SHA-256 of weights in the cache with the catalogue; exit code 1 where one is missing or differs."""
    from enrichers.errors import ModelCorrupt, ModelMissing

    store = _store(config)
    rows = []
    for name in names or _needed(config):
        for entry in store.catalogue.with_parts(name):
            try:
                rows.append({"name": entry.name, "state": "ok", "message": str(store.verify(entry.name))})
            except (ModelCorrupt, ModelMissing) as error:
                state = "corrupt" if isinstance(error, ModelCorrupt) else "missing"
                rows.append({"name": entry.name, "state": state, "message": str(error)})
    rows = [row for index, row in enumerate(rows) if row not in rows[:index]]
    if as_json:
        print_json(rows)
    else:
        print_table(None, ["model", "state", ""], [list(row.values()) for row in rows])
    if any(row["state"] != "ok" for row in rows):
        raise typer.Exit(1)


@app.command()
@configured
def licences(config: "Config", as_json: Json = False) -> None:
    """List the licence of every model."""
    rows = [
        {
            "name": entry.name,
            "licence": entry.licence,
            "restricted": entry.restricted,
            "note": entry.licence_note,
            "source": _source(entry),
        }
        for entry in _store(config).catalogue
    ]
    if as_json:
        print_json(rows)
        return
    columns = ["model", "licence", "every use", "note"]
    print_table(None, columns, [[r["name"], r["licence"], "no" if r["restricted"] else "yes", r["note"]] for r in rows])


def _store(config: "Config") -> "ModelStore":
    from enrichers.catalogue import Catalogue
    from enrichers.weights import ModelStore

    folder = config.models.folder
    return ModelStore(folder, Catalogue.load(config.models.entries, folder), config.models.offline)


def _needed(config: "Config") -> list[str]:
    """The models that the enabled enrichers ask for, also those whose hash is not known before they are pulled."""
    from enrichers.catalogue import Catalogue
    from enrichers.contract import Weights
    from enrichers.registry import enabled

    asked: list[str] = []

    class Listening(Catalogue):
        def weights(self, name: str) -> tuple[Weights, ...]:
            asked.extend(entry.name for entry in self.with_parts(name))
            return tuple(Weights(entry.name, self.sha256(entry.name) or "") for entry in self.with_parts(name))

    catalogue = Listening.load(config.models.entries, config.models.folder)
    for enricher in enabled(config.enrichers.enabled, config.enrichers.settings, catalogue):
        enricher.weights()
    return list(dict.fromkeys(asked))


def _described(store: "ModelStore", entry: "Entry", needed: list[str]) -> dict[str, Any]:
    return {
        "name": entry.name,
        "task": entry.task,
        "runtime": entry.runtime,
        "licence": entry.licence,
        "restricted": entry.restricted,
        "sha256": store.catalogue.sha256(entry.name),
        "bytes": entry.bytes,
        "cached": not store.missing([entry.name]),
        "needed": entry.name in needed,
        "source": _source(entry),
        "note": entry.note,
    }


def _source(entry: "Entry") -> str:
    return str(entry.sources[0]) if entry.sources else f"parts: {', '.join(entry.parts.values())}"

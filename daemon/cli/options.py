"""What the commands share: the flags of the configuration, and how answers are printed."""

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from enrichers.errors import EnrichdError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.console import Console

    from daemon.config import Config

P = ParamSpec("P")
T = TypeVar("T")

PANEL = "Configuration"
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

#: shared flag → the setting that it sets; `config` and `set` are told apart in `_load`
FLAGS: dict[str, tuple[str, Any]] = {
    "config_file": ("", Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file.")]),
    "uri": ("mongo.uri", Annotated[str | None, typer.Option("--uri", help="MongoDB URI.")]),
    "database": ("mongo.database", Annotated[str | None, typer.Option("--database", help="Database.")]),
    "collection": ("mongo.collection", Annotated[str | None, typer.Option("--collection", help="Collection.")]),
    "root": (
        "images.roots",
        Annotated[list[Path] | None, typer.Option("--root", help="Folder below which paths may be read; repeatable.")],
    ),
    "assignments": (
        "",
        Annotated[
            list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, dotted; repeatable.")
        ],
    ),
}


def configured(command: Callable[Concatenate["Config", P], None]) -> Callable[..., None]:
    """A command for Typer out of a function whose first parameter is the configuration: the shared flags take that
    parameter's place."""

    def run(**arguments: Any) -> None:
        shared = {name: arguments.pop(name) for name in FLAGS}
        command(_load(shared), **arguments)  # type: ignore[call-arg]

    return in_place_of_first(run, command, {name: (_in_panel(flag), None) for name, (_, flag) in FLAGS.items()})


def in_place_of_first(
    run: Callable[..., None], command: Callable[..., None], flags: Mapping[str, tuple[Any, Any]]
) -> Callable[..., None]:
    """`run`, made to look to Typer like `command` with `flags` (annotation and default by name) in place of its first
    parameter."""
    own = list(inspect.signature(command).parameters.values())[1:]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in flags.items()
    ]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + shared
    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _in_panel(annotation: Any) -> Any:
    annotation.__metadata__[0].rich_help_panel = PANEL
    return annotation


def _load(shared: dict[str, Any]) -> "Config":
    from daemon.config import load, parse_assignment

    flags = {setting: shared[name] or None for name, (setting, _) in FLAGS.items() if setting}
    flags |= dict(parse_assignment(text) for text in shared["assignments"] or [])
    return load(shared["config_file"], flags)


class FileUnwritable(EnrichdError):
    """The file cannot be written."""


def writable(file: Path | None, suffixes: tuple[str, ...] = ()) -> None:
    """Raises FileUnwritable where a file that is written at the end of a command could not be, before it starts.
    `suffixes` are those that say a known format."""
    if file is None:
        return
    if suffixes and file.suffix.lower() not in suffixes:
        raise FileUnwritable(f"{file.name}: the name must end in {' or '.join(suffixes)}.")
    if not file.absolute().parent.is_dir():
        raise FileUnwritable(f"There is no folder {file.absolute().parent}.")
    if file.is_dir() or not os.access(file if file.exists() else file.absolute().parent, os.W_OK):
        raise FileUnwritable(f"{file} cannot be written.")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Runs a command's work; a driver's error that nobody explained becomes an error of enrichd's."""
    from pymongo.errors import PyMongoError

    try:
        return asyncio.run(work)
    except PyMongoError as error:
        raise EnrichdError(f"The database says: {str(error).partition(', full error')[0]}") from None


def print_json(value: Any) -> None:
    """One JSON object on stdout; ids as strings, times as ISO 8601 with their zone."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_as_text))


def as_document(entry: "DataclassInstance") -> dict[str, Any]:
    """A dataclass about a document, for `print_json`: its `id` is the document's and stands under `_id`, as in all
    documents."""
    values = asdict(entry)
    return {"_id" if name == "id" else name: value for name, value in values.items()}


def _as_text(value: Any) -> str:
    if isinstance(value, datetime):  # one without a zone is UTC, as MongoDB keeps them
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return str(value)


def console() -> "Console":
    """Where progress and remarks go: stderr, so that stdout is the answer alone."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


#: columns whose cells are copied into other commands: they are never broken
UNBROKEN = {"id", "source", "face", "decision"}
#: characters that any other column should have at least
MIN_WIDTH = 12


def print_table(title: str | None, columns: list[str], rows: list[list[Any]]) -> None:
    """A table on stdout. On a terminal that is too narrow for its ids and sources, each row becomes a block of lines;
    where no terminal reads it, each row is one line, as long as it has to be."""
    from rich.console import Console
    from rich.table import Table

    cells = [["" if cell is None else " ".join(str(cell).splitlines()) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        print(plain_table(title, columns, cells))
        return
    console = Console(highlight=False)
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    kept = [width if name in UNBROKEN else min(width, MIN_WIDTH) for name, width in zip(columns, widths, strict=True)]
    if not UNBROKEN.isdisjoint(columns) and sum(kept) + 2 * len(kept) > console.width:
        blocks = (plain_table(None, ["", ""], list(map(list, zip(columns, row, strict=True)))) for row in cells)
        print("\n\n".join([title, *blocks] if title else blocks))
        return
    table = Table(
        title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", show_header=any(columns)
    )
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in UNBROKEN)
    for row in cells:
        table.add_row(*row)
    console.print(table, markup=False)


def plain_table(title: str | None, columns: list[str], rows: list[list[str]]) -> str:
    """A table as text, one line a row, without spaces at the ends of lines."""
    lines = [columns, *rows] if any(columns) else rows
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([title, *shown] if title else shown)

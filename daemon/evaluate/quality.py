"""`enrichd evaluate all`: measures everything on the evaluation data and writes docs/quality.md."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.evaluate import frame, implied_labels
from daemon.evaluate.properties import value_at
from enrichers.errors import EnrichdError

#: the table of what is measured; a task adds its rows there
ROWS = Path(__file__).with_suffix(".toml")
#: how the command line is started anew, so that one task's models do not stay in memory for the next
COMMAND = (sys.executable, "-c", "from daemon.cli import main; main()", "evaluate")

HEAD = """# Quality

Measured by `enrichd evaluate all` on the evaluation data (small, real, labelled sets: good for comparing versions and
models, not for quoting). `DATA` is their folder, `LABELS` what `enrichd evaluate labels DATA LABELS` writes. Published
figures are of larger sets, to compare with.

"""


class MeasurementFailed(EnrichdError):
    """Some of the evaluations failed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One command and the figures of it that are shown."""

    task: str
    command: tuple[str, ...]
    figures: Mapping[str, str]  #: dotted key of the command's JSON → what it is called
    published: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    row: Row
    figures: Mapping[str, Any] | None
    problem: str = ""
    seconds: float = 0.0


def register(app: typer.Typer) -> None:
    app.command("all")(measure_all)


def measure_all(
    data: Annotated[Path, typer.Argument(help="Folder of the evaluation data.", exists=True, file_okay=False)],
    output: Annotated[Path, typer.Option("--output", help="Markdown file to write.")] = Path("docs/quality.md"),
    only: Annotated[list[str] | None, typer.Option("--only", help="A command to run, objects say; repeatable.")] = None,
    limit: frame.Limit = None,
    seed: frame.Seed = 0,
    as_json: frame.Json = False,
    device: frame.Device = None,
) -> None:
    """Measures everything and writes a page with each figure, its command and the published figure beside it.

    The page is written after each task. What is left out by --only keeps the figures that the page has. A task that
    fails is written down as failed, and the exit code is then 1.
    """
    rows = read_rows()
    extra = [
        *(("--limit", str(limit)) if limit else ()),
        *(("--device", device) if device else ()),
        "--seed",
        str(seed),
    ]
    kept = _kept(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    measured: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as labels:
        implied_labels.write(data, Path(labels))
        folders = {"{data}": str(data), "{labels}": labels}
        for item in _run(rows, folders, extra, only or [row.command[0] for row in rows]):
            measured[item.row.task] = item
            parts = [_lines(measured[row.task]) if row.task in measured else kept.get(row.task, []) for row in rows]
            output.write_text(page([line for part in parts for line in part]), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps({item.row.task: item.figures or {"problem": item.problem} for item in measured.values()}))
    else:
        typer.echo(f"{len(measured)} tasks measured; see {output}")
    if failed := [f"{item.row.task}: {item.problem}" for item in measured.values() if item.figures is None]:
        raise MeasurementFailed("\n".join(failed))


def read_rows(file: Path = ROWS) -> list[Row]:
    rows = tomllib.loads(file.read_text(encoding="utf-8"))["row"]
    return [Row(row["task"], tuple(row["command"]), row["figures"], row.get("published", {})) for row in rows]


def _run(
    rows: Sequence[Row], folders: Mapping[str, str], extra: Sequence[str], only: Sequence[str]
) -> Iterator[Measured]:
    """`folders` are what stands for the names in braces of a row's command."""
    chosen = [row for row in rows if row.command[0] in only]
    for number, row in enumerate(chosen, 1):
        typer.echo(f"[{number}/{len(chosen)}] {row.task}", err=True)
        own = [_filled(argument, folders) for argument in row.command]
        flags = [flag for flag in extra if row.command[0] != "files" or flag not in ("--device", "cpu", "cuda", "auto")]
        started = time.perf_counter()
        done = subprocess.run([*COMMAND, *own, *flags, "--json"], capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip(" │─╭╮╰╯")]
            yield Measured(row, None, said[-1].strip(" │") if said else f"exit code {done.returncode}", seconds)
        else:
            yield Measured(row, json.loads(done.stdout[done.stdout.index("{") :]), "", seconds)


def _filled(argument: str, folders: Mapping[str, str]) -> str:
    for name, folder in folders.items():
        argument = argument.replace(name, folder)
    return argument


def _lines(measured: Measured) -> list[str]:
    """The rows of the page for one task: one a figure."""
    row = measured.row
    command = _filled(" ".join(["enrichd evaluate", *row.command]), {"{data}": "DATA", "{labels}": "LABELS"})
    if measured.figures is None:
        return [f"| {row.task} | – | failed: {measured.problem.replace('|', '/')} | | `{command}` |"]
    lines = []
    for key, name in row.figures.items():
        value = value_at(measured.figures, key)
        shown = "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
        lines.append(f"| {row.task} | {name} | {shown} | {row.published.get(key, '')} | `{command}` |")
    return lines


def _kept(output: Path) -> dict[str, list[str]]:
    """The rows of the page as it is, by task."""
    kept: dict[str, list[str]] = {}
    for line in output.read_text(encoding="utf-8").splitlines() if output.is_file() else []:
        if line.startswith("| ") and not line.startswith(("| task ", "|---")):
            kept.setdefault(line.split(" | ")[0].removeprefix("| "), []).append(line)
    return kept


def page(lines: Sequence[str]) -> str:
    table = ["| task | figure | measured | published | command |", "|---|---|---|---|---|", *lines]
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    return HEAD + "\n".join(table) + f"\n\nMachine: {machine}.\n"

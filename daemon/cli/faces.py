"""`enrichd faces`: writes the faces of images as pictures."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.options import Json, configured, console, print_json, print_table

if TYPE_CHECKING:
    from daemon.config import Config
    from daemon.face_export import Job

#: failures that are shown one by one; the others are counted
SHOWN_FAILURES = 10

app = typer.Typer(help="Faces: write them as pictures.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Faces: write them as pictures."""


@app.command()
@configured
def export(
    config: "Config",
    out: Annotated[Path, typer.Argument(help="Folder to write to.", file_okay=False, show_default=False)],
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of images.", exists=True, file_okay=False, show_default=False)
    ] = None,
    from_db: Annotated[
        bool, typer.Option("--from-db", help="The stored faces instead of a folder's, a folder for each identity.")
    ] = False,
    size: Annotated[int, typer.Option("--size", min=16, max=1024, help="Side of the pictures in pixels.")] = 160,
    margin: Annotated[
        float, typer.Option("--margin", min=0, max=2, help="Share of the face shown beyond it on each side.")
    ] = 0.25,
    every: Annotated[bool, typer.Option("--every", help="Every face instead of an image's largest.")] = False,
    aligned: Annotated[
        bool, typer.Option("--aligned/--upright", help="Turned by the landmarks, or the square around the box.")
    ] = True,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes; 0: one a core.")] = 0,
    as_json: Json = False,
) -> None:
    """Write the largest face of each image, or every one, as PNG files of one size, for training other models.

    Folders are kept: FOLDER/ada/1.jpg becomes OUT/ada/1.png, further faces 1-2.png and so on.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from daemon.connection import require_database
    from daemon.face_export import Cut, Exported, NothingToExport, folder_jobs
    from daemon.face_export import export as run

    if (folder is None) == (not from_db):
        raise typer.BadParameter("Give either FOLDER or --from-db.")
    if from_db:
        require_database(config)
    found = folder_jobs(folder, out) if folder is not None else None
    jobs = _stored(config, out, every) if found is None else iter(found)
    started, total = time.monotonic(), Exported()
    columns = (TextColumn("Exporting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    output = console()
    with Progress(*columns, console=output, transient=True, disable=not output.is_terminal) as progress:
        task = progress.add_task("", total=len(found) if found else None)
        for part in run(jobs, config, Cut(size, margin, aligned, every), workers or None):
            total.add(part)
            progress.update(task, completed=total.images)
    summary = {
        "images": total.images,
        "faces": total.faces,
        "without_face": total.without_face,
        "failed": len(total.failures),
        "seconds": round(time.monotonic() - started, 1),
        "out": str(out),
    }
    if as_json:
        print_json(
            {**summary, "failures": [{"image": n, "error": f.type, "message": f.message} for n, f in total.failures]}
        )
    else:
        print_table(None, ["", ""], [[key, value] for key, value in summary.items()])
        for name, failure in total.failures[:SHOWN_FAILURES]:
            console().print(f"{name}: {failure.message}", markup=False)
    if not total.images:
        raise NothingToExport("No faces are stored yet.")
    if total.images == len(total.failures):
        raise typer.Exit(1)


def _stored(config: "Config", out: Path, every: bool) -> Iterator["Job"]:
    """The stored faces' jobs, each fetched when it is asked for, so that a large collection is never held in memory."""
    from daemon.connection import connect
    from daemon.face_export import stored_jobs

    async def stream() -> AsyncGenerator["Job", None]:
        async with connect(config) as collections:
            async for job in stored_jobs(config, collections, out, every):
                yield job

    async def next_of(jobs: AsyncGenerator["Job", None]) -> "Job | None":
        return await anext(jobs, None)

    with asyncio.Runner() as runner:
        jobs = stream()
        try:
            while (job := runner.run(next_of(jobs))) is not None:
                yield job
        finally:
            runner.run(jobs.aclose())

"""What every `enrichd evaluate` command shares: options, running enrichers without a database, and the report."""

import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import typer

from daemon import config as configuration
from daemon.cli.options import in_place_of_first
from daemon.config import Config
from enrichers.contract import Enricher, Failure, Result
from enrichers.errors import EnrichdError
from enrichers.image import Box, Facts, Image, Pixels

Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Take no more than this many, picked by the seed.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")]
Model = Annotated[str | None, typer.Option("--model", help="A model of the catalogue instead of the configured one.")]
SaveErrors = Annotated[
    Path | None, typer.Option("--save-errors", file_okay=False, help="Folder for pictures of what went wrong.")
]

#: file name endings that count as images where a folder is given; what a file is, decoding decides
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".webp", ".heic", ".heif", ".hif", ".avif"),
)

#: images that are decoded and held together; each enricher takes its own batches out of them
CHUNK = 32

Item = TypeVar("Item")
P = ParamSpec("P")
Outcome = Result | Failure


class LabelsInvalid(EnrichdError):
    """The labels cannot be read."""


class Evaluated(NamedTuple):
    """One image and what the enrichers said of it; `image` is None where the file is refused or cannot be read, and
    every outcome then is that failure."""

    path: Path
    image: Image | None
    outcomes: dict[str, Outcome]

    def answer(self, name: str) -> Mapping[str, Any] | None:
        """The answer of one enricher, or None where it failed."""
        outcome = self.outcomes[name]
        return outcome.answer if isinstance(outcome, Result) else None


@dataclass(frozen=True, slots=True)
class Options:
    """The options that all commands take."""

    limit: int | None = None
    seed: int = 0
    as_json: bool = False
    device: str | None = None
    model: str | None = None
    save_errors: Path | None = None

    def config(self, enricher: str | None = None, settings: Mapping[str, Any] | None = None) -> Config:
        """The configuration with `--device`, and with `--model` and `settings` as settings of `enricher`."""
        changes = {**(settings or {}), **({"model": self.model} if self.model else {})}
        flags = {f"enrichers.{enricher}.{key}": value for key, value in changes.items()} if enricher else {}
        return configuration.load(flags={"pipeline.device": self.device, **flags})

    def pick(self, items: Iterable[Item]) -> list[Item]:
        """All items, or `limit` of them, drawn by `seed`, in their order."""
        everything = list(items)
        if self.limit is None or self.limit >= len(everything):
            return everything
        chosen = sorted(random.Random(self.seed).sample(range(len(everything)), self.limit))
        return [everything[index] for index in chosen]


#: the flags of a command that takes all options, with their defaults
FLAGS: dict[str, tuple[Any, Any]] = {
    "limit": (Limit, None),
    "seed": (Seed, 0),
    "as_json": (Json, False),
    "device": (Device, None),
    "model": (Model, None),
    "save_errors": (SaveErrors, None),
}


def with_options(command: Callable[Concatenate[Options, P], None]) -> Callable[..., None]:
    """A command for Typer out of a function whose first parameter is `Options`: all their flags take its place."""

    def run(**arguments: Any) -> None:
        options = Options(**{name: arguments.pop(name) for name in FLAGS})
        command(options, **arguments)  # type: ignore[call-arg]

    return in_place_of_first(run, command, FLAGS)


def images_below(folder: Path) -> list[Path]:
    """The image files in a folder and below, by their names' endings, sorted. Raises LabelsInvalid if there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise LabelsInvalid(f"There is no image in {folder}.")
    return found


@contextmanager
def refusals() -> Iterator[None]:
    """Ends a command with one line on stderr and exit code 1 where one of enrichd's errors leaves it."""
    try:
        yield
    except EnrichdError as error:
        typer.echo(f"enrichd evaluate: {error}", err=True)
        raise typer.Exit(1) from None


def progress(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """The items, with a progress bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from items
        return
    yield from track(items, description=description, total=total, console=console, transient=True)


def run_enrichers(
    names: Sequence[str], paths: Sequence[Path], config: Config, *, chunk: int = CHUNK
) -> Iterator[Evaluated]:
    """Decodes images and runs enrichers on them in this process, in batches, without a database; in the order of
    `paths`, with a progress bar. What the enrichers require is run as well, and is in the outcomes.

    Raises EnricherUnknown, SettingInvalid, ModelMissing, ModelUnknown, DeviceUnavailable before the first image.
    """
    enrichers = load_enrichers(names, config)
    sides = [enricher.form.max_side for enricher in enrichers]
    max_side = None if None in sides else max((side for side in sides if side is not None), default=None)

    def decoded(part: Sequence[Path]) -> list[Image | Failure]:
        return [_decoded(path, key, max_side, config) for key, path in enumerate(part)]

    def chunks() -> Iterator[Evaluated]:
        parts = [paths[start : start + chunk] for start in range(0, len(paths), chunk)]
        with ThreadPoolExecutor(1) as pool:  # the next chunk is decoded while this one is enriched
            ahead = pool.submit(decoded, parts[0]) if parts else None
            for index, part in enumerate(parts):
                assert ahead is not None
                images = ahead.result()
                ahead = pool.submit(decoded, parts[index + 1]) if index + 1 < len(parts) else None
                yield from _enriched(part, images, enrichers)

    return progress(chunks(), len(paths), ", ".join(names))


def load_enrichers(names: Sequence[str], config: Config) -> list[Enricher]:
    """The enrichers and what they require, loaded, in the order in which they must run."""
    from enrichers import registry
    from enrichers.catalogue import Catalogue
    from enrichers.loading import ProcessLoader
    from enrichers.weights import ModelStore

    points = {point.name: point for point in metadata.entry_points(group=registry.GROUP)}
    wanted: list[str] = []
    queue = list(names)
    while queue:
        name = queue.pop(0)
        if name not in wanted:
            wanted.append(name)
            queue += points[name].load().requires if name in points else ()
    catalogue = Catalogue.load(config.models.entries, config.models.folder)
    enrichers = registry.enabled(wanted, config.enrichers.settings, catalogue)
    store = ModelStore(config.models.folder, catalogue, config.models.offline)
    loader = ProcessLoader(store, config.pipeline.device, config.pipeline.threads or os.cpu_count() or 1)
    for enricher in enrichers:
        enricher.load(loader)
    return enrichers


def _decoded(path: Path, key: int, max_side: int | None, config: Config) -> Image | Failure:
    from enrichers.decode import decode

    limits = config.images
    try:
        pixels, facts = decode(path, max_side=max_side, max_pixels=limits.max_pixels, max_bytes=limits.max_bytes)
    except (EnrichdError, OSError) as error:
        return Failure.of(error)
    return as_image(key, pixels, facts)


def as_image(key: int, pixels: Pixels, facts: Facts) -> Image:
    """A decoded picture as enrichers get it; its results can be added to."""
    return Image(key, pixels, facts.width, facts.height, facts, {})


def _enriched(
    paths: Sequence[Path], images: Sequence[Image | Failure], enrichers: Sequence[Enricher]
) -> Iterator[Evaluated]:
    outcomes: list[dict[str, Outcome]] = [{} for _ in paths]
    for enricher in enrichers:
        ready: list[tuple[int, Image]] = []
        for index, image in enumerate(images):
            if isinstance(image, Failure):
                outcomes[index][enricher.name] = image
            elif missing := [name for name in enricher.requires if isinstance(outcomes[index][name], Failure)]:
                outcomes[index][enricher.name] = Failure("EnricherFailed", f"It requires {', '.join(missing)}.")
            else:
                ready.append((index, image))
        for start in range(0, len(ready), enricher.max_batch):
            batch = ready[start : start + enricher.max_batch]
            for (index, image), outcome in zip(batch, _outcomes(enricher, [i for _, i in batch]), strict=True):
                outcomes[index][enricher.name] = outcome
                if isinstance(outcome, Result):
                    image.results = {**image.results, enricher.name: outcome.required()}
    for path, image, outcome_by_name in zip(paths, images, outcomes, strict=True):
        yield Evaluated(path, None if isinstance(image, Failure) else image, outcome_by_name)


def _outcomes(enricher: Enricher, images: Sequence[Image]) -> Sequence[Outcome]:
    """A batch's outcomes; where it fails as a whole, each image's own, as the daemon does it."""
    try:
        return enricher.enrich(images)
    except Exception as error:  # an enricher may raise anything, which is one image's failure and no more
        if len(images) == 1:
            return [Failure.of(error)]
        return [_outcomes(enricher, [image])[0] for image in images]


def report(title: str, figures: Mapping[str, Any], options: Options) -> None:
    """Prints the figures: as one JSON object, or as a table; a mapping among them becomes a table of its own."""
    if options.as_json:
        typer.echo(json.dumps(figures, default=float))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in figures.items():
        if not isinstance(value, Mapping):
            table.add_row(name, _shown(value))
    console.print(table)
    for name, value in figures.items():
        if isinstance(value, Mapping) and value:
            console.print(_table(name, value))


def _table(title: str, rows: Mapping[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    columns = list(dict.fromkeys(key for row in rows.values() if isinstance(row, Mapping) for key in row))
    table.add_column("")
    for column in columns or [""]:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        cells = [row.get(column) for column in columns] if isinstance(row, Mapping) else [row]
        table.add_row(str(name), *(_shown(cell) for cell in cells))
    return table


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def save_error(
    folder: Path, path: Path, image: Image | None, lines: Sequence[str], boxes: Sequence[tuple[Box, str]] = ()
) -> None:
    """Writes a picture of what went wrong: the image, boxes (pixels of the upright file) with words, and lines of text
    below. A JPEG of the image's name; where the image could not be decoded, a text file."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{path.parent.name}-{path.stem}"
    if image is None:
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    from PIL import Image as Canvas
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(14)
    picture = Canvas.fromarray(image.fitted(1200))
    scale = picture.width / image.width
    row = 20
    sheet = Canvas.new("RGB", (max(picture.width, 480), picture.height + row * len(lines) + 8), "white")
    sheet.paste(picture)
    draw = ImageDraw.Draw(sheet)
    for (x, y, width, height), word in boxes:
        draw.rectangle((x * scale, y * scale, (x + width) * scale, (y + height) * scale), outline="red", width=2)
        draw.text((x * scale + 2, y * scale + 2), word, fill="red", font=font)
    for index, line in enumerate(lines):
        draw.text((4, picture.height + 4 + row * index), line, fill="black", font=font)
    sheet.save(folder / f"{name}.jpg", quality=90)

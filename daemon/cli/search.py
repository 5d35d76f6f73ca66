"""`enrichd search`: finds images of the collection by a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.options import Json, configured, console, print_json, print_table, run_async
from daemon.plural import counted

if TYPE_CHECKING:
    from daemon.config import Config
    from daemon.search import Query
    from enrichers.similarity import Similarity

Picture = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The picture to search for.")]
MinScore = Annotated[
    float | None,
    typer.Option(
        "--min-score",
        min=0,
        max=1,
        help="Score from which an image is shown that is not proven to be the same. Default: 0.15, and 0 where fewer "
        "than 20 images are searched.",
    ),
]
Count = Annotated[int, typer.Option("--count", "-n", min=1, help="How many images to print.")]

#: longest side in pixels of the picture that is searched for
SIDE = 1600


def register(app: typer.Typer) -> None:
    app.command()(search)


@configured
def search(
    config: "Config", picture: Picture, count: Count = 10, min_score: MinScore = None, as_json: Json = False
) -> None:
    """Find the images that a picture was made from, or that look like it: crops, turns, screenshots of them."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from daemon.connection import connect, require_database
    from daemon.search import CANDIDATES, CENTRED_FROM, Gallery, query
    from daemon.store import similarity
    from enrichers.decode import decode

    require_database(config)
    output = console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    progress = Progress(*columns, console=output, transient=True, disable=not output.is_terminal)

    async def work(wanted: "Query", fingerprint: str) -> tuple[list[dict[str, Any]], int, int]:
        async with connect(config) as collections:
            step("Reading the images' vectors")
            stored = await similarity.described(collections, config.images.source, fingerprint)
            left_out = await similarity.outdated(collections, fingerprint)
            if stored is None:
                return [], 0, left_out
            step(f"Comparing {counted(len(stored.ids), 'image')}")
            proofs: dict[Any, Any] = {}
            gallery = Gallery(stored.vectors, stored.regions, lambda row: proofs.get(stored.ids[row]))
            nearest = gallery.nearest(wanted.vectors, max(count, CANDIDATES))
            proofs |= await similarity.keypoints(collections, [stored.ids[row] for row, _ in nearest])
            matches = [
                {
                    "_id": stored.ids[match.index],
                    "source": stored.sources[match.index],
                    "same": match.same,
                    "score": round(match.score, 4),
                    "agreeing": match.agreeing,
                }
                for match in gallery.search(wanted, count, min_score)
            ]
            return matches, len(stored.ids), left_out

    def step(description: str) -> None:
        progress.update(task, description=description)

    with progress:
        task = progress.add_task("Loading the model", total=None)
        enricher = open_similarity(config)
        step("Looking at the picture")
        limits = config.images
        pixels, _ = decode(picture, max_side=SIDE, max_pixels=limits.max_pixels, max_bytes=limits.max_bytes)
        found, searched, left_out = run_async(work(query(pixels, enricher.embedder), enricher.fingerprint({})))
    if as_json:
        print_json({"matches": found, "searched": searched, "left_out": left_out})
        return
    if left_out:
        processed = "it is" if left_out == 1 else "they are"
        output.print(f"{counted(left_out, 'image')} left out until {processed} processed with the current settings.")
    if not searched:
        output.print("No image can be searched yet: the similarity enricher has not run.")
        return
    if not found:
        output.print(f"None of {counted(searched, 'image')} is like it; --min-score 0 shows the nearest.")
        return
    if searched < CENTRED_FROM and min_score is None and not all(match["same"] for match in found):
        remark = "Too few images to tell what is like the picture: those that are not the same are only the nearest."
        output.print(remark, soft_wrap=True)
    print_table(
        None,
        ["id", "source", "same", "score", "agreeing"],
        [[_shown(value) for value in match.values()] for match in found],
    )


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return ("yes" if value else "") if isinstance(value, bool) else str(value)


def open_similarity(config: "Config") -> "Similarity":
    """The similarity enricher as configured, loaded. Raises SettingInvalid, ModelMissing, DeviceUnavailable."""
    import os

    from enrichers import registry
    from enrichers.catalogue import Catalogue
    from enrichers.loading import ProcessLoader
    from enrichers.similarity import Similarity
    from enrichers.weights import ModelStore

    catalogue = Catalogue.load(config.models.entries, config.models.folder)
    (enricher,) = registry.enabled(["similarity"], config.enrichers.settings, catalogue)
    assert isinstance(enricher, Similarity)
    store = ModelStore(config.models.folder, catalogue, offline=True)
    enricher.load(ProcessLoader(store, config.pipeline.device, config.pipeline.threads or os.cpu_count() or 1))
    return enricher

"""`enrichd search`: finds images of the collection by a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.options import Json, configured, console, print_json, print_table, run_async
from daemon.plural import counted

if TYPE_CHECKING:
    from daemon.config import Config
    from enrichers.similarity import Similarity

Picture = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The picture to search for.")]
Count = Annotated[int, typer.Option("--count", "-n", min=1, help="How many images to print.")]

#: longest side in pixels of the picture that is searched for
SIDE = 1600


def register(app: typer.Typer) -> None:
    app.command()(search)


@configured
def search(config: "Config", picture: Picture, count: Count = 10, as_json: Json = False) -> None:
    """Find the images that a picture was made from, or that look like it: crops, turns, screenshots of them."""
    from daemon.connection import connect, require_database
    from daemon.search import CANDIDATES, Gallery, query
    from daemon.store import similarity
    from enrichers.decode import decode

    require_database(config)
    enricher = open_similarity(config)
    limits = config.images
    pixels, _ = decode(picture, max_side=SIDE, max_pixels=limits.max_pixels, max_bytes=limits.max_bytes)
    wanted = query(pixels, enricher.embedder)
    fingerprint = enricher.fingerprint({})

    async def work() -> tuple[list[dict[str, Any]], int]:
        async with connect(config) as collections:
            stored = await similarity.described(collections, config.images.source, fingerprint)
            left_out = await similarity.outdated(collections, fingerprint)
            if stored is None:
                return [], left_out
            proofs: dict[Any, Any] = {}
            gallery = Gallery(stored.vectors, stored.regions, lambda row: proofs.get(stored.ids[row]))
            nearest = gallery.nearest(wanted.vectors, max(count, CANDIDATES))
            proofs |= await similarity.keypoints(collections, [stored.ids[row] for row, _ in nearest])
            return [
                {
                    "_id": stored.ids[match.index],
                    "source": stored.sources[match.index],
                    "same": match.same,
                    "score": round(match.score, 4),
                    "agreeing": match.agreeing,
                }
                for match in gallery.search(wanted, count)
            ], left_out

    found, left_out = run_async(work())
    if as_json:
        print_json({"matches": found, "left_out": left_out})
        return
    if left_out:
        processed = "it is" if left_out == 1 else "they are"
        console().print(f"{counted(left_out, 'image')} left out until {processed} processed with the current settings.")
    if not found:
        console().print("No image can be searched yet: the similarity enricher has not run.")
        return
    columns = ["id", "source", "same", "score", "agreeing"]
    print_table(None, columns, [[_shown(value) for value in match.values()] for match in found])


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

"""`enrichd evaluate files`: which files of a folder are read, which are refused and why."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from daemon.evaluate import frame
from daemon.evaluate.frame import LabelsInvalid, Options


def register(app: typer.Typer) -> None:
    app.command("files")(files)


def files(
    folder: Annotated[Path, typer.Argument(help="Folder of files of any kind.", exists=True, file_okay=False)],
    limit: frame.Limit = None,
    seed: frame.Seed = 0,
    as_json: frame.Json = False,
    save_errors: frame.SaveErrors = None,
) -> None:
    """Decodes every file below a folder: read, refused with a reason, or (a fault of enrichd's) failed."""
    from enrichers.decode import decode
    from enrichers.errors import ImageRefused

    options = Options(limit, seed, as_json, save_errors=save_errors)
    limits = options.config().images
    paths = options.pick(sorted(path for path in folder.rglob("*") if path.is_file()))
    if not paths:
        raise LabelsInvalid(f"There is no file in {folder}.")
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for path in frame.progress(paths, len(paths), "decode"):
        try:
            _, facts = decode(path, max_side=None, max_pixels=limits.max_pixels, max_bytes=limits.max_bytes)
        except ImageRefused as error:
            counts["refused"] += 1
            kinds[type(error).__name__] += 1
        except Exception as error:  # that no other error leaves decoding is what is measured
            counts["failed"] += 1
            kinds[type(error).__name__] += 1
            if options.save_errors:
                frame.save_error(options.save_errors, path, None, [f"{type(error).__name__}: {error}"])
        else:
            counts["read"] += 1
            kinds[facts.format] += 1
    figures = {key: counts[key] for key in ("read", "refused", "failed")}
    frame.report("Files", {**figures, "files": len(paths), "kinds": dict(kinds.most_common())}, options)

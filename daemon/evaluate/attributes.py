"""`enrichd evaluate attributes`: whether general attributes of pictures are what their labels say."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.evaluate import frame
from daemon.evaluate.frame import LabelsInvalid, Options
from daemon.evaluate.labels import Pair, by_label, read_labels

#: attributes that have no value to be labelled
BOXES = ("focus", "crops")


def register(app: typer.Typer) -> None:
    app.command("attributes")(attributes)


@frame.with_options
def attributes(
    options: Options,
    labels: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="TSV of file, attribute and value, e.g. place, indoor.")
    ],
) -> None:
    """Measure attributes: precision and recall of each value. Files are relative to the labels' folder."""
    rows = options.pick(read_labels(labels))
    paths = list(dict.fromkeys(row.path for row in rows))
    answers = {}
    pictures = {}
    for item in frame.run_enrichers(["attributes"], paths, options.config("attributes")):
        answers[item.path] = item.answer("attributes")
        pictures[item.path] = item.image if options.save_errors else None
    pairs: dict[str, list[Pair]] = defaultdict(list)
    unread = 0
    for row in rows:
        answer = answers[row.path]
        if answer is None:
            unread += 1
            continue
        if row.attribute not in answer or row.attribute in BOXES:
            known = ", ".join(name for name in answer if name not in BOXES)
            raise LabelsInvalid(f"{labels}: no attribute is called {row.attribute!r}; attributes are: {known}")
        found = as_label(answer[row.attribute])
        pairs[row.attribute].append(Pair(row.value, found))
        if options.save_errors and found != row.value:
            said = f"{row.attribute}: label {row.value}, found {found}"
            frame.save_error(
                options.save_errors, row.path.with_stem(f"{row.path.stem}-{row.attribute}"), pictures[row.path], [said]
            )
    right = sum(pair.wanted == pair.found for found in pairs.values() for pair in found)
    total = sum(map(len, pairs.values()))
    figures: dict[str, Any] = {
        "right": right / max(total, 1),
        "labels": total,
        "images": len(paths),
        "unread": unread,
        "right_by": {name: sum(p.wanted == p.found for p in found) / len(found) for name, found in pairs.items()},
    }
    frame.report("attributes", {**figures, **{name: by_label(found) for name, found in pairs.items()}}, options)


def as_label(told: Any) -> str:
    """An attribute's value as labels write it: lower case, "none" where nothing is told."""
    return "none" if told is None else str(told["value"]).casefold()

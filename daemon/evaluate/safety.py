"""`enrichd evaluate safety`: whether pictures are told as safe or not as their labels say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.evaluate import frame
from daemon.evaluate.frame import Evaluated, LabelsInvalid, Options
from daemon.evaluate.labels import Pair, by_label, read_labels

LABELS = ("safe", "nsfw")


def register(app: typer.Typer) -> None:
    app.command("safety")(safety)


@frame.with_options
def safety(
    options: Options,
    labels: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="TSV of file and label: safe or nsfw.")],
) -> None:
    """Measure the safety score: precision and recall of each label, and how well scores are in order."""
    rows = options.pick(read_labels(labels, "label"))
    if wrong := next((row.value for row in rows if row.value not in LABELS), None):
        raise LabelsInvalid(f"{labels} has the label {wrong!r}; labels are: {', '.join(LABELS)}")
    wanted = {row.path: row.value for row in rows}
    evaluated = [*frame.run_enrichers(["safety"], list(wanted), options.config("safety"))]
    frame.report("safety", figures(evaluated, [wanted[item.path] for item in evaluated]), options)
    for item in evaluated:
        answer = item.answer("safety")
        if options.save_errors and (answer is None or answer["label"] != wanted[item.path]):
            said = f"label {wanted[item.path]}, found {answer or item.outcomes['safety']}"
            frame.save_error(options.save_errors, item.path, item.image, [said])


def figures(evaluated: Sequence[Evaluated], wanted: Sequence[str]) -> dict[str, Any]:
    """`average_precision` of the score for nsfw, over the images that could be read; `labels` by value, where a score
    in between is the answer "unsure", which is never right."""
    from sklearn.metrics import average_precision_score

    answers = [item.answer("safety") for item in evaluated]
    known = [(answer, label) for answer, label in zip(answers, wanted, strict=True) if answer is not None]
    nsfw = [label == "nsfw" for _, label in known]
    scores = [answer["nsfw"] for answer, _ in known]
    return {
        "average_precision": float(average_precision_score(nsfw, scores)) if any(nsfw) else None,
        "images": len(known),
        "unread": len(evaluated) - len(known),
        "labels": by_label([Pair(label, answer["label"]) for answer, label in known]),
    }

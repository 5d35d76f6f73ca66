"""`enrichd calibrate`: finds what an embedding model's distances mean, from photos of known people."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.options import Json

Folder = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A folder of photos a person.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File for the found values, for identities.calibration; those of other models in it stay.",
    ),
]
Everyone = Annotated[bool, typer.Option("--all", help="Calibrate on everyone; there is nobody left to report on then.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
ModelName = Annotated[str | None, typer.Option("--model", help="An embedding model of the catalogue.")]


def register(app: typer.Typer) -> None:
    app.command()(calibrate)


def calibrate(
    people: Folder,
    output: Output = None,
    everyone: Everyone = False,
    seed: Seed = 0,
    model: ModelName = None,
    as_json: Json = False,
) -> None:
    """Find what the distances of an embedding model mean, on one half of the people, and report on the other."""
    from dataclasses import asdict

    import numpy as np

    from daemon.calibrate import fit, half_of
    from daemon.calibration import as_toml, read_tables
    from daemon.cli.options import print_json, print_table, writable
    from daemon.clustering import Constraints, cluster
    from daemon.evaluate.frame import Options
    from daemon.evaluate.identities import subset, with_face
    from daemon.evaluate.people import photos_of, read
    from daemon.scores import agreement

    writable(output)
    options = Options(seed=seed, model=model)
    found = read(photos_of(people, options), options)
    halves = [half_of(photo.person) for photo in with_face(found)]
    half = np.array(halves + [-1] * (len(found.label) - len(halves)))
    faces, labels = subset(found, half >= 0 if everyone else half == 0)
    calibration = fit(found.model, faces.vectors, np.unique(labels, return_inverse=True)[1], seed)
    report: dict[str, object] = {"model": found.model, "faces": len(labels), "calibration": asdict(calibration)}
    if not everyone:
        faces, labels = subset(found, half == 1)
        report["other_half"] = asdict(agreement(labels, cluster(faces, calibration, Constraints())))
    if output:
        kept = {
            **(read_tables(output) if output.exists() else {}),
            found.model: calibration,
        }  # other models' stay in the file
        output.write_text("\n".join(as_toml(entry) for entry in kept.values()), encoding="utf-8")
    if as_json:
        print_json(report)
        return
    print(as_toml(calibration))
    if not everyone:
        print_table("On the other half", ["", ""], [[k, f"{v:.4f}"] for k, v in report["other_half"].items()])  # type: ignore[attr-defined]

"""Labels of whole images, and how well answers fit them: precision and recall of each label."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.evaluate.frame import LabelsInvalid


@dataclass(frozen=True, slots=True)
class Label:
    """One value that an attribute of one file must have."""

    path: Path
    attribute: str
    value: str


@dataclass(frozen=True, slots=True)
class Pair:
    """What a label says and what was found."""

    wanted: str
    found: str


def read_labels(file: Path, attribute: str | None = None) -> list[Label]:
    """The rows of a TSV file: file, attribute and value, or, where `attribute` is given, file and value. Files are
    relative to the folder of the TSV file. Empty lines and lines that start with # are left out. Raises LabelsInvalid.
    """
    wanted = 3 if attribute is None else 2
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsInvalid(f"{file} cannot be read: {error}") from None
    labels = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != wanted or not all(cells):
            names = "file and value" if attribute else "file, attribute and value"
            raise LabelsInvalid(f"{file}, line {number}: it must be {names}, separated by tabs.")
        labels.append(Label(file.parent / cells[0], attribute or cells[1], cells[-1].casefold()))
    if not labels:
        raise LabelsInvalid(f"{file} has no labels.")
    return labels


def by_label(pairs: Sequence[Pair]) -> dict[str, dict[str, float | int | None]]:
    """Precision, recall and how often it was wanted, for each value; None where nothing was found or wanted."""
    return {
        value: {
            "precision": _share([pair.wanted == value for pair in pairs if pair.found == value]),
            "recall": _share([pair.found == value for pair in pairs if pair.wanted == value]),
            "images": sum(pair.wanted == value for pair in pairs),
        }
        for value in sorted({pair.wanted for pair in pairs} | {pair.found for pair in pairs})
    }


def _share(right: Sequence[bool]) -> float | None:
    return sum(right) / len(right) if right else None

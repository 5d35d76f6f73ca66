"""`enrichd evaluate properties`: whether the properties of files are what their labels say."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.evaluate import frame
from daemon.evaluate.frame import LabelsInvalid, Options

#: numbers that differ by no more than this share are the same: labels are often rounded
TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Label:
    """One field of one file, and the value that it must have."""

    path: Path
    field: str
    value: str


def register(app: typer.Typer) -> None:
    app.command("properties")(properties)


@frame.with_options
def properties(
    options: Options,
    folder: Annotated[Path, typer.Argument(help="Folder of the files.", exists=True, file_okay=False)],
    labels: Annotated[Path, typer.Option("--labels", help="TSV of file, field (dotted) and value.")],
) -> None:
    """Compares properties with labels, field by field.

    A field is dotted (camera.make, location.coordinates.0, colours.0.name); an empty value or null means that there is
    none. Numbers may differ by 1 %. The field `error` is the type with which a file must be refused.
    """
    rows = options.pick(read_labels(folder, labels))
    paths = list(dict.fromkeys(row.path for row in rows))
    evaluated = {item.path: item for item in frame.run_enrichers(["properties"], paths, options.config("properties"))}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        item = evaluated[row.path]
        outcome = item.outcomes["properties"]
        answer: Mapping[str, Any] = item.answer("properties") or {"error": getattr(outcome, "type", None)}
        found = value_at(answer, row.field)
        right = same(row.value, found)
        counts[row.field]["right" if right else "wrong"] += 1
        if options.save_errors and not right:
            lines = [f"{row.field}: label {row.value!r}, found {found!r}"]
            frame.save_error(options.save_errors, Path(f"{row.path}.{row.field}"), item.image, lines)
    fields = {field: {key: counts[field][key] for key in ("right", "wrong")} for field in counts}
    totals = {key: sum(count[key] for count in counts.values()) for key in ("right", "wrong")}
    frame.report("Properties", {**totals, "files": len(paths), "fields": fields}, options)


def read_labels(folder: Path, file: Path) -> list[Label]:
    """The rows of a TSV file. Raises LabelsInvalid."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsInvalid(f"{file} cannot be read: {error}") from None
    return list(_rows(folder, file, lines))


def _rows(folder: Path, file: Path, lines: list[str]) -> Iterator[Label]:
    for number, line in enumerate(lines, 1):
        cells = line.split("\t")
        if not line.strip() or line.startswith("#"):
            continue
        if len(cells) not in (2, 3):
            raise LabelsInvalid(f"{file}, line {number}: it must be file, field and value, separated by tabs.")
        yield Label(folder / cells[0], cells[1], cells[2] if len(cells) == 3 else "")


def value_at(answer: Any, field: str) -> Any:
    """The value of a dotted field; numbers are places in arrays. None where there is none."""
    value = answer
    for name in field.split("."):
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, (list, tuple)) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def same(label: str, found: Any) -> bool:
    """Whether a found value is what a label says: no value, yes or no, a number within 1 %, a time, else text without
    regard to case."""
    label = label.strip()
    if label.casefold() in ("", "null", "none"):
        return found is None
    if found is None:
        return False
    if isinstance(found, bool):
        return label.casefold() == str(found).casefold()
    if isinstance(found, (int, float)):
        try:
            wanted = float(label)
        except ValueError:
            return False
        return abs(wanted - found) <= TOLERANCE * max(abs(wanted), abs(found))
    if isinstance(found, datetime):
        try:
            return datetime.fromisoformat(label) == found
        except ValueError:
            return False
    return label.casefold() == str(found).strip().casefold()

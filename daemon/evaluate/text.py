"""`enrichd evaluate text`: how well words and pages are read."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.evaluate import frame
from daemon.evaluate.frame import Evaluated, LabelsInvalid, Options


class Format(StrEnum):
    words = "words"
    sroie = "sroie"


@dataclass(frozen=True, slots=True)
class Word:
    """One picture of a word, and what it says."""

    path: Path
    text: str


def register(app: typer.Typer) -> None:
    app.command("text")(text)


def text(
    labels: Annotated[Path, typer.Argument(help="TSV of file and text, or a folder with img/ and box/ (SROIE).")],
    format: Annotated[Format, typer.Option("--format", help="words: file, tab, text. sroie: pages and boxes.")] = (
        Format.words
    ),
    engine: Annotated[str | None, typer.Option("--engine", help="rapidocr or tesseract.")] = None,
    limit: frame.Limit = None,
    seed: frame.Seed = 0,
    as_json: frame.Json = False,
    device: frame.Device = None,
    model: frame.Model = None,
    save_errors: frame.SaveErrors = None,
) -> None:
    """How well text is read: pictures of single words, or whole pages.

    words: a case-insensitive comparison of everything that is read in a picture with its label. Punctuation is compared
    where the labels have any; where they leave it out, it is left out of what was read too.
    sroie: the words of a page as a bag, without case: the share of the labelled ones that were read, and of the read
    ones that are labelled. A word is a run of letters and digits; a token is what spaces part, punctuation as given.
    """
    options = Options(limit, seed, as_json, device, None, save_errors)
    chosen = {"engine": engine, "recognition": model}
    config = options.config("text", {key: value for key, value in chosen.items() if value})
    if format is Format.words:
        words = options.pick(read_words(labels))
        evaluated = list(frame.run_enrichers(["text"], [word.path for word in words], config))
        figures = measure_words([word.text for word in words], [said(item) for item in evaluated])
        wrong = _wrong_words(words, evaluated)
    else:
        pages = options.pick(read_pages(labels))
        evaluated = list(frame.run_enrichers(["text"], [path for path, _ in pages], config))
        figures = measure_pages([page for _, page in pages], [said(item) for item in evaluated])
        wrong = _wrong_pages([page for _, page in pages], evaluated)
    if options.save_errors:
        for item, lines in wrong:
            frame.save_error(options.save_errors, item.path, item.image, lines, _boxes(item))
    frame.report(f"Text ({format})", figures, options)


def said(item: Evaluated) -> str:
    answer = item.answer("text")
    return str(answer["text"]) if answer else ""


def read_words(file: Path) -> list[Word]:
    """The pictures of a TSV file, which are below its folder. Raises LabelsInvalid."""
    try:
        rows = [line.split("\t") for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsInvalid(f"{file} cannot be read: {error}") from None
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise LabelsInvalid(f"{file}, line {number}: it must be a file, a tab and a text.")
    if not rows:
        raise LabelsInvalid(f"{file} is empty.")
    return [Word(file.parent / name, said) for name, said in rows]


def read_pages(folder: Path) -> list[tuple[Path, str]]:
    """The pages of `img/` with the text of their files in `box/`: eight coordinates and the text a line, separated by
    commas (ICDAR 2019 SROIE, task 1). Raises LabelsInvalid."""
    images = {path.stem: path for path in (folder / "img").glob("*") if path.suffix.lower() in frame.IMAGE_SUFFIXES}
    pages = []
    for boxes in sorted([*(folder / "box").glob("*.csv"), *(folder / "box").glob("*.txt")]):
        if boxes.stem in images:
            lines = boxes.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            texts = [line.split(",", 8)[8] for line in lines if line.count(",") >= 8]
            pages.append((images[boxes.stem], "\n".join(texts)))
    if not pages:
        raise LabelsInvalid(f"{folder} has no pages: it must hold pictures in img/ and their lines in box/.")
    return pages


def plain(text: str, punctuation: bool) -> str:
    """A word as it is compared: compatibility forms unified (NFKC), no case, no space; letters and digits only where
    punctuation is left out."""
    folded = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded if punctuation else re.sub(r"[\W_]", "", folded)


def measure_words(labels: Sequence[str], readings: Sequence[str]) -> dict[str, Any]:
    """`exact`: share of words read without a fault; `cer`: edit distance over all words by their characters."""
    punctuation = any(re.search(r"[^\w\s]|_", label) for label in labels)
    pairs = [
        (plain(label, punctuation), plain(said, punctuation)) for label, said in zip(labels, readings, strict=True)
    ]
    characters = sum(len(label) for label, _ in pairs)
    return {
        "exact": sum(label == reading for label, reading in pairs) / len(pairs),
        "cer": sum(distance(label, reading) for label, reading in pairs) / max(1, characters),
        "words": len(pairs),
        "punctuation": punctuation,
    }


def bag(text: str) -> Counter[str]:
    """The words of a page, runs of letters and digits, without case."""
    return Counter(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold()))


def tokens(text: str) -> Counter[str]:
    """What spaces part on a page, punctuation included, without case."""
    return Counter(unicodedata.normalize("NFKC", text).casefold().split())


def measure_pages(labels: Sequence[str], readings: Sequence[str]) -> dict[str, Any]:
    """Recall and precision of all words of all pages together; a word counts as often as it stands on its page. The
    same of tokens, which a wrong comma or space makes wrong."""
    figures: dict[str, Any] = {}
    for name, parted in (("word", bag), ("token", tokens)):
        pairs = [(parted(label), parted(reading)) for label, reading in zip(labels, readings, strict=True)]
        right = sum((label & reading).total() for label, reading in pairs)
        figures[f"{name}_recall"] = right / max(1, sum(label.total() for label, _ in pairs))
        figures[f"{name}_precision"] = right / max(1, sum(reading.total() for _, reading in pairs))
    return {**figures, "pages": len(labels), "words": sum(bag(label).total() for label in labels)}


def distance(one: str, other: str) -> int:
    """Levenshtein's edit distance."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]


def _wrong_words(words: Sequence[Word], evaluated: Sequence[Evaluated]) -> Iterable[tuple[Evaluated, list[str]]]:
    punctuation = any(re.search(r"[^\w\s]|_", word.text) for word in words)
    for word, item in zip(words, evaluated, strict=True):
        if plain(word.text, punctuation) != plain(said(item), punctuation):
            yield item, [f"label: {word.text}", f"read: {said(item)}"]


def _wrong_pages(labels: Sequence[str], evaluated: Sequence[Evaluated]) -> Iterable[tuple[Evaluated, list[str]]]:
    for label, item in zip(labels, evaluated, strict=True):
        missed = bag(label) - bag(said(item))
        if missed:
            yield item, [f"missed: {' '.join(missed.elements())}"[:200]]


def _boxes(item: Evaluated) -> list[tuple[Any, str]]:
    answer: Mapping[str, Any] = item.answer("text") or {}
    return [(tuple(line["box"]), str(line["text"])) for line in answer.get("lines", [])]

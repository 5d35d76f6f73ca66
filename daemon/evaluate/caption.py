"""`enrichd evaluate caption`: how near captions are to what people wrote, and how many of their nouns are right."""

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.evaluate import frame
from daemon.evaluate.caption_scores import CiderD, bleu4, tokenize
from enrichers.caption_words import load_words


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image, what people wrote about it, and the labels of what they marked in it."""

    path: Path
    references: tuple[str, ...]
    labels: frozenset[str]


@dataclass(frozen=True, slots=True)
class Judged:
    """One caption: its CIDEr-D, 0 to 10, its nouns, and those that nothing supports."""

    caption: str
    cider: float
    nouns: tuple[str, ...]
    wrong: tuple[str, ...]


def read_labels(images: Path, captions: Path, instances: Path | None = None) -> list[Labelled]:
    """The images of a COCO caption file that lie in a folder. Raises LabelsInvalid."""
    table = _coco(captions)
    names = {image["id"]: image["file_name"] for image in table["images"]}
    references: dict[str, list[str]] = defaultdict(list)
    labels: dict[str, set[str]] = defaultdict(set)
    try:
        for annotation in table["annotations"]:
            references[names[annotation["image_id"]]].append(annotation["caption"])
        if instances:
            marked = _coco(instances)
            names |= {image["id"]: image["file_name"] for image in marked["images"]}
            categories = {category["id"]: category["name"] for category in marked["categories"]}
            for annotation in marked["annotations"]:
                labels[names[annotation["image_id"]]].add(categories[annotation["category_id"]])
    except KeyError as error:
        raise frame.LabelsInvalid(f"{captions} is not in COCO's form: {error} is missing") from None
    found = [
        Labelled(images / name, tuple(said), frozenset(labels[name]))
        for name, said in sorted(references.items())
        if (images / name).is_file()
    ]
    if not found:
        raise frame.LabelsInvalid(f"None of the images in {captions} lies in {images}.")
    return found


def _coco(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if not (isinstance(table["images"], list) and isinstance(table["annotations"], list)):
            raise KeyError("annotations")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise frame.LabelsInvalid(f"{path} is not in COCO's form: {error}") from None
    return table


def judge(captions: Sequence[str], labelled: Sequence[Labelled]) -> tuple[list[Judged], dict[str, Any]]:
    """Each caption judged against its image's references, and the figures over all of them.

    A noun is right where a reference caption or a given label of the image has it, a synonym of it, or something that
    it is a broader word for (`enrichers/caption_concepts.tsv`); a word that is not known as another part of speech is
    a noun. `noun_precision` is the share of right ones among all nouns of all captions.
    """
    words = load_words()
    references = [[tokenize(reference) for reference in image.references] for image in labelled]
    tokens = [tokenize(caption) for caption in captions]
    cider = CiderD(references)
    judged = []
    for at, (caption, image) in enumerate(zip(captions, labelled, strict=True)):
        known = words.known(
            [noun.name for reference in references[at] for noun in words.nouns(reference)] + sorted(image.labels)
        )
        nouns = tuple(noun.name for noun in words.nouns(tokens[at]))
        wrong = tuple(noun for noun in nouns if not words.supported(noun, known))
        judged.append(Judged(caption, cider.score(at, tokens[at]), nouns, wrong))
    count = sum(len(j.nouns) for j in judged)
    return judged, {
        "cider": sum(j.cider for j in judged) / len(judged),
        "bleu4": bleu4(tokens, references),
        "noun_precision": 1 - sum(len(j.wrong) for j in judged) / count if count else None,
        "images": len(judged),
        "nouns_per_caption": count / len(judged),
    }


def register(app: typer.Typer) -> None:
    """Adds `caption` to the tasks that can be measured."""

    @app.command(help="Captions: CIDEr-D and BLEU-4 against what people wrote, and how many nouns are right.")
    @frame.with_options
    def caption(
        options: frame.Options,
        images: Annotated[Path, typer.Argument(file_okay=False, exists=True, help="Folder of the images.")],
        labels: Annotated[Path, typer.Option("--labels", dir_okay=False, exists=True, help="COCO's captions.json.")],
        instances: Annotated[
            Path | None,
            typer.Option("--instances", dir_okay=False, exists=True, help="COCO's instances.json: more nouns known."),
        ] = None,
    ) -> None:
        with frame.refusals():
            labelled = options.pick(read_labels(images, labels, instances))
            frame.report("caption", evaluate(labelled, options), options)


def evaluate(labelled: Sequence[Labelled], options: frame.Options) -> Mapping[str, Any]:
    """Captions the images and judges them. An image without a caption counts as one without words."""
    began = time.perf_counter()
    seen = list(frame.run_enrichers(["caption"], [image.path for image in labelled], options.config("caption")))
    seconds = time.perf_counter() - began
    captions = [str((one.answer("caption") or {}).get("text", "")) for one in seen]
    judged, figures = judge(captions, labelled)
    if options.save_errors:
        for one, image, j in zip(seen, labelled, judged, strict=True):
            if j.wrong or not j.caption:
                lines = [j.caption or "no caption", f"wrong: {', '.join(j.wrong)}", *image.references]
                frame.save_error(options.save_errors, one.path, one.image, lines)
    failed = sum(one.answer("caption") is None for one in seen)
    return {**figures, "failed": failed, "ms_per_image": 1000 * seconds / len(labelled)}

"""Captions: one sentence about a picture, made of what the other enrichers found in it."""

import re
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, ClassVar

from enrichers.caption_evidence import CLASSES, LABEL_CLASSES, Thing, nouns_for, words
from enrichers.caption_grammar import Phrase, Placed, describe, overlap, touch
from enrichers.caption_relations import holds, stands_on
from enrichers.caption_words import load_words
from enrichers.caption_writer import Layout, Vocabulary, Writer, Written, fitted, is_known
from enrichers.captioner import open_captioner
from enrichers.contract import Enricher, Failure, Form, Loader, Result, Weights
from enrichers.errors import SettingInvalid
from enrichers.image import Box, Image

#: the catalogue's name of the sequence model that ships with the package, and that of the rules
WRITER, GRAMMAR = "caption_words", "grammar"

#: longest side in pixels that a captioner of the catalogue has a use for
PICTURE_SIDE = 768
#: the share of the picture from which a thing is middling and large
MIDDLING, LARGE = 0.015, 0.10
#: the score from which an image class counts as found
CLASS_SCORE = 0.6
#: the scores from which a face, and its gender, count as known
FACE_SCORE, GENDER_SCORE = 0.6, 0.95
#: the share of a face that lies in a person's box where it is that person's
INSIDE = 0.7
#: years under which a person is a baby, and no adult
BABY, ADULT = 2, 14
#: the score from which a picture is known to be indoors or outdoors
PLACE_SCORE = 0.8
#: characters of found text that a caption quotes
QUOTED = 60
#: pictures that are something else than a photo, by the attribute `kind`
KINDS = {"document": "a document", "screenshot": "a screenshot", "drawing": "a drawing"}


class Caption(Enricher):
    """One sentence, each of its nouns with the evidence for it. `model` is `caption_words` (the sequence model of the
    package), `grammar` (rules alone), or a captioner of the catalogue, which looks at the picture itself."""

    name = "caption"
    version = 1
    requires = ("objects", "faces", "tags", "text", "attributes")
    defaults: ClassVar[Mapping[str, Any]] = {"model": WRITER, "min_score": 0.5, "beams": 8, "likely": 0.5}

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        if settings["beams"] < 1:
            raise SettingInvalid(f"enrichers.caption.beams is {settings['beams']}; it must be at least 1")

    @property
    def model(self) -> str:
        return str(self.settings["model"])

    @property
    def form(self) -> Form:
        return Form(1 if self.model in (WRITER, GRAMMAR) else PICTURE_SIDE)

    @property
    def max_batch(self) -> int:
        return 16 if self.model in (WRITER, GRAMMAR) else 4

    def weights(self) -> tuple[Weights, ...]:
        if self.model == GRAMMAR:
            return ()
        return self.catalogue.weights(self.model)

    def load(self, loader: Loader) -> None:
        self._writer, self._captioner = None, None
        if self.model not in (WRITER, GRAMMAR):
            self._captioner = open_captioner(self.catalogue.entry(self.model), loader)
        elif self.model == WRITER:
            network = loader.network(WRITER)
            self._writer = Writer(network, Vocabulary.load(), self.settings["beams"], self.settings["likely"])

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        found = [find(image, self.settings["min_score"]) for image in images]
        answers: dict[int, dict[str, Any]] = {}
        if self._captioner:
            texts = self._captioner.write([image.fitted(PICTURE_SIDE) for image in images])
            return [
                Result(_from_captioner(text, [p.thing for p in placed], self.model))
                for text, placed in zip(texts, found, strict=True)
            ]
        if self._writer:
            rows = [row for row, placed in enumerate(found) if placed and all(is_known(p.thing) for p in placed)]
            things = [[p.thing for p in found[row]] for row in rows]
            layouts = [layout(found[row], images[row].results) for row in rows]
            for row, candidates in zip(rows, self._writer.write(things, layouts), strict=True):
                placed = found[row]
                true = next((w for w in candidates if holds(w.units, w.nouns, placed)), None)
                if true:
                    answers[row] = _from_writer(true, [p.thing for p in placed])
        return [
            Result(answers.get(row) or _from_rules(describe(placed), images[row].results))
            for row, placed in enumerate(found)
        ]


def find(image: Image, min_score: float) -> list[Placed]:
    """The kinds of things that the other enrichers found, the most prominent first."""
    found = {placed.name: placed for placed in _objects(image, min_score)}
    for placed in _people(image, found.get("person")):
        found.setdefault(placed.name, placed)
    for name, score in _classes(image.results.get("tags", {})):
        found.setdefault(name, Placed(Thing(name, 1, 2, "tags", score), ()))
    return sorted(found.values(), key=lambda p: (-p.thing.prominence, -p.thing.score))


def _objects(image: Image, min_score: float) -> list[Placed]:
    specimens: dict[str, list[tuple[float, Box]]] = {}
    for item in image.results.get("objects", {}).get("items", ()):
        if item["score"] >= min_score:
            specimens.setdefault(item["label"], []).append((item["score"], _share(item["box"], image)))
    placed = []
    for label, found in specimens.items():
        largest = max(box[2] * box[3] for _, box in found)
        prominence = 2 if largest >= LARGE else 1 if largest >= MIDDLING else 0
        thing = Thing(label, len(found), prominence, "objects", max(score for score, _ in found))
        placed.append(Placed(thing, tuple(box for _, box in found)))
    return placed


def _people(image: Image, people: Placed | None) -> list[Placed]:
    """Who the people are, as their faces show it: only where the largest of them, or half of them, show theirs."""
    faces = [
        (face, _share(face["box"], image))
        for face in image.results.get("faces", {}).get("items", ())
        if face.get("score", 0) >= FACE_SCORE
    ]
    if not faces:
        return []
    if people is None:
        thing = Thing("person", len(faces), 2, "faces", max(face["score"] for face, _ in faces))
        people = Placed(thing, tuple(box for _, box in faces))
        placed = [people]
    else:
        placed = []
        main = max(people.boxes, key=lambda box: box[2] * box[3])
        seen = [overlap(box, main) > INSIDE and box[1] < main[1] + main[3] / 2 for _, box in faces]
        if not any(seen) and 2 * len(faces) < people.thing.count:
            return []
    kinds: dict[str, list[tuple[float, Box]]] = {}
    for face, box in faces:
        if kind := kind_of(face):
            kinds.setdefault(kind, []).append((face["score"], box))
    for kind, known in kinds.items():
        thing = Thing(kind, len(known), people.thing.prominence, "faces", max(score for score, _ in known))
        placed.append(Placed(thing, tuple(box for _, box in known)))
    return placed


def kind_of(face: Mapping[str, Any]) -> str | None:
    """ "man", "woman", "boy", "girl", "child" or "baby" as a face's age and gender say, None where they are unsure."""
    age, gender = face.get("age"), face.get("gender")
    if age is None:
        return None
    if age < BABY:
        return "baby"
    if gender is None or face.get("gender_score", 0) < GENDER_SCORE:
        return "child" if age < ADULT - 2 else None
    if age < ADULT:
        return "boy" if gender == "male" else "girl"
    return "man" if gender == "male" else "woman"


def _share(box: Sequence[float], image: Image) -> Box:
    x, y, width, height = box
    return (x / image.width, y / image.height, width / image.width, height / image.height)


def _classes(tags: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The things that image classes mean, with their scores."""
    means = {one: name for table in (CLASSES, LABEL_CLASSES) for name, classes in table.items() for one in classes}
    return [
        (means[item["label"]], float(item["score"]))
        for item in tags.get("items", ())
        if item["score"] >= CLASS_SCORE and item["label"] in means
    ]


def layout(placed: Sequence[Placed], results: Mapping[str, Mapping[str, Any]]) -> Layout:
    """What the boxes show together, and what settings the attributes rule out."""
    place = results.get("attributes", {}).get("place") or {}
    sure = place.get("score", 0) >= PLACE_SCORE
    elsewhere = {"indoor": "outdoors", "outdoor": "indoors"}.get(str(place.get("value"))) if sure else None
    pairs = list(permutations(placed, 2))
    return Layout(
        touching=any(touch(one, other) for one, other in pairs),
        standing=any(one.boxes and other.boxes and stands_on(one, other) for one, other in pairs),
        elsewhere=words(elsewhere) if elsewhere else frozenset(),
    )


def sentence(units: Sequence[str]) -> str:
    """Units as a sentence: articles fitted, first letter large, a full stop."""
    text = " ".join(fitted(units))
    return f"{text[:1].upper()}{text[1:]}."


def _from_writer(written: Written, things: Sequence[Thing]) -> dict[str, Any]:
    nouns = nouns_for(things)
    evidence = []
    for unit, noun in zip(written.units, written.nouns, strict=True):
        if noun is None:
            continue
        if noun in nouns:
            evidence.append(_evidence(unit, nouns[noun]))
        else:
            found = {**_evidence(unit, things), "inferred": round(written.places[noun], 3)}
            evidence.append(found)
    return {"text": sentence(written.units), "evidence": evidence, "by": WRITER}


def _from_captioner(text: str, things: Sequence[Thing], model: str) -> dict[str, Any]:
    """The captioner's own sentence. A noun that the other enrichers found has their evidence, another one the
    captioner's word alone."""
    lexicon = load_words()
    tokens = re.findall(r"[^\W\d_][\w'-]*", text.lower())
    evidence = []
    for noun in lexicon.nouns(tokens):
        name = " ".join(tokens[noun.start : noun.end])
        support = [thing for thing in things if lexicon.supported(noun.name, lexicon.known([thing.name]))]
        evidence.append(_evidence(name, support) if support else {"word": name, "from": model, "found": []})
    return {"text": sentence(text.rstrip(" .").split()), "evidence": evidence, "by": model}


def _evidence(word: str, things: Sequence[Thing]) -> dict[str, Any]:
    return {
        "word": word,
        "from": things[0].source,
        "found": [thing.name for thing in things],
        "score": round(min(thing.score for thing in things), 4),
    }


def _from_rules(phrase: Phrase | None, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    evidence: list[dict[str, Any]] = []
    if phrase:
        said = phrase.words
        evidence = [_evidence(word, things) for word, things in phrase.named]
    else:
        said = KINDS.get(str(results.get("attributes", {}).get("kind", {}).get("value")), "a picture")
        text = " ".join(str(results.get("text", {}).get("text") or "").split())
        if text:
            quoted = text if len(text) <= QUOTED else text[: QUOTED - 1].rstrip() + "…"
            said += f' with the text "{quoted}"'
            evidence.append({"word": "text", "from": "text", "found": [quoted]})
    return {"text": sentence([said]), "evidence": evidence, "by": GRAMMAR}

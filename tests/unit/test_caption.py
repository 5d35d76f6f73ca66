"""Captions: what is found becomes evidence, and nothing without evidence is said."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from enrichers.caption import Caption, find, kind_of, layout
from enrichers.caption_evidence import LABELS, PLACES, Thing, noun_fits, nouns_for, quantity_fits
from enrichers.caption_grammar import Placed, describe, relation
from enrichers.caption_relations import holds
from enrichers.caption_words import load_words
from enrichers.caption_writer import Grounding, Layout, Vocabulary, Writer, Written, fitted
from enrichers.catalogue import Catalogue
from enrichers.errors import SettingInvalid
from enrichers.image import Facts, Image
from enrichers.loading import ProcessLoader
from enrichers.weights import ModelStore

WIDTH, HEIGHT = 400, 200
FACTS = Facts("JPEG", 1, "0" * 64, WIDTH, HEIGHT)
WORDS = load_words()


def image(**results: Mapping[str, Any]) -> Image:
    return Image(0, np.zeros((HEIGHT, WIDTH, 3), np.uint8), WIDTH, HEIGHT, FACTS, results)


def objects(*items: tuple[str, float, tuple[float, ...]]) -> dict[str, Any]:
    return {"items": [{"label": label, "score": score, "box": list(box)} for label, score, box in items]}


def face(age: int, gender: str, score: float, box: tuple[float, ...]) -> dict[str, Any]:
    return {"score": 0.9, "age": age, "gender": gender, "gender_score": score, "box": list(box)}


def caption(picture: Image, **settings: Any) -> dict[str, Any]:
    enricher = Caption({**Caption.defaults, "model": "grammar", **settings})
    enricher.load(None)  # type: ignore[arg-type]
    (result,) = enricher.enrich([picture])
    return dict(result.answer)  # type: ignore[union-attr]


def nouns_of(text: str) -> list[str]:
    return [noun.name for noun in WORDS.nouns(re.findall(r"[a-z'-]+", text.lower()))]


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ((("dog", 0.9, (0, 0, 200, 200)),), "A dog."),
        ((("dog", 0.9, (0, 0, 90, 90)), ("dog", 0.8, (200, 0, 90, 90))), "Two dogs."),
        ((("dog", 0.4, (0, 0, 200, 200)),), "A picture."),  # below the score that counts
        ((("person", 0.9, (100, 0, 100, 150)), ("horse", 0.9, (80, 60, 200, 140))), "A person riding a horse."),
        ((("person", 0.9, (0, 0, 80, 150)), ("horse", 0.9, (280, 60, 100, 140))), "A person next to a horse."),
        ((("cat", 0.9, (100, 40, 120, 80)), ("couch", 0.9, (0, 80, 390, 120))), "A cat on a couch."),
        ((("umbrella", 0.9, (0, 0, 150, 150)),), "An umbrella."),  # the article
        (tuple(("sheep", 0.9, (60.0 * at, 50, 50, 50)) for at in range(5)), "A herd of sheep."),
    ],
)
def test_the_grammar_says_how_many_of_what_and_how_they_stand(found: Any, text: str) -> None:
    assert caption(image(objects=objects(*found)))["text"] == text


def test_a_face_tells_who_the_person_is() -> None:
    body = objects(("person", 0.9, (100, 20, 100, 180)))
    inside, elsewhere = (130, 30, 30, 30), (300, 30, 30, 30)
    man = caption(image(objects=body, faces={"items": [face(40, "male", 0.99, inside)]}))
    assert man["text"] == "A man."
    assert man["evidence"] == [{"word": "man", "from": "faces", "found": ["man"], "score": 0.9}]
    unsure = caption(image(objects=body, faces={"items": [face(40, "male", 0.8, inside)]}))
    assert unsure["text"] == "A person."
    crowd = objects(*(("person", 0.9, (60.0 * at, 20, 50 + at, 180)) for at in range(6)))
    other = caption(image(objects=crowd, faces={"items": [face(40, "male", 0.99, elsewhere)]}))
    assert "man" not in nouns_of(other["text"])  # one face says nothing of six people


@pytest.mark.parametrize(
    ("age", "gender", "score", "kind"),
    [
        (40, "male", 0.99, "man"),
        (13, "female", 0.99, "girl"),
        (14, "female", 0.99, "woman"),  # the edge of adulthood
        (8, "male", 0.6, "child"),
        (13, "male", 0.6, None),  # may be either
        (1, "male", 0.99, "baby"),
        (40, "female", 0.94, None),
    ],
)
def test_kinds_of_people(age: int, gender: str, score: float, kind: str | None) -> None:
    assert kind_of(face(age, gender, score, (0, 0, 1, 1))) == kind


def test_nothing_found_but_text_quotes_it() -> None:
    answer = caption(image(objects={"items": []}, text={"text": "OPEN\n24 hours"}))
    assert answer["text"] == 'A picture with the text "OPEN 24 hours".'
    assert answer["evidence"] == [{"word": "text", "from": "text", "found": ["OPEN 24 hours"]}]
    document = caption(image(text={"text": "x" * 200}, attributes={"kind": {"value": "document", "score": 0.9}}))
    assert document["text"].startswith('A document with the text "xxx')
    assert len(document["text"]) < 120


def test_an_image_class_counts_where_the_detector_saw_nothing() -> None:
    tags = {"items": [{"label": "granny smith apple", "score": 0.9}, {"label": "tray", "score": 0.3}]}
    assert [(p.name, p.thing.source) for p in find(image(tags=tags), 0.5)] == [("apple", "tags")]
    both = image(tags=tags, objects=objects(("apple", 0.8, (0, 0, 50, 50)), ("apple", 0.8, (100, 0, 50, 50))))
    assert [(p.thing.count, p.thing.source) for p in find(both, 0.5)] == [(2, "objects")]


def test_prominence_is_by_the_largest_specimen() -> None:
    found = find(image(objects=objects(("car", 0.9, (0, 0, 20, 20)), ("cat", 0.9, (0, 0, 200, 100)))), 0.5)
    assert {p.name: p.thing.prominence for p in found} == {"car": 0, "cat": 2}


def random_findings(rng: np.random.Generator) -> dict[str, Any]:
    names = rng.choice(LABELS, rng.integers(1, 6))
    sizes = rng.uniform(10, 200, (len(names), 2))
    return objects(
        *(
            (str(name), 0.9, (float(rng.uniform(0, 200)), float(rng.uniform(0, 100)), float(w), float(h)))
            for name, (w, h) in zip(names, sizes, strict=True)
        )
    )


@pytest.mark.parametrize("seed", range(40))
def test_the_grammar_names_only_what_its_evidence_lists(seed: int) -> None:
    found = random_findings(np.random.default_rng(seed))
    answer = caption(image(objects=found))
    listed = {word["word"] for word in answer["evidence"]}
    labels = {item["label"] for item in found["items"]}
    assert all(set(word["found"]) <= labels for word in answer["evidence"])
    known = WORDS.known(noun for word in listed for noun in nouns_of(word))
    assert all(WORDS.supported(noun, known) for noun in nouns_of(answer["text"]))


PLAIN = ("<s>", "</s>", "a", "on", "sitting", "two", "group", "riding", "his")
NAMING = {"dog": "dog", "dogs": "dog", "man": "man", "person": "person", "people": "person", "kitchen": "kitchen"}
NAMING |= {name: name for name in ("cat", "table", "street", "animal")}
VOCABULARY = Vocabulary((*PLAIN, *NAMING), (*(None for _ in PLAIN), *NAMING.values()))


class Noise:
    """A network that wants to say anything, and holds one setting likely."""

    def __init__(self, seed: int, likely: str) -> None:
        self.rng = np.random.default_rng(seed)
        self.places = np.where(np.array(PLACES) == likely, 5.0, -5.0).astype(np.float32)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        n = len(inputs["last"])
        return {
            "logits": self.rng.normal(0, 4, (n, len(VOCABULARY.units))).astype(np.float32),
            "state": inputs["state"],
            "places": np.repeat(self.places[None], n, axis=0),
        }


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_model_wants_only_what_has_evidence_is_written(seed: int) -> None:
    one = [Thing("dog", 1, 2, "objects", 0.9)]
    two = [Thing("person", 2, 2, "objects", 0.9), Thing("dining table", 1, 0, "objects", 0.8)]
    writer = Writer(Noise(seed, "kitchen"), VOCABULARY, beams=3, likely=0.5)
    for first, second in zip(*writer.write([one, two], [Layout(False, False), Layout(True, True)]), strict=False):
        check(first, second)


def check(first: Written, second: Written) -> None:
    """What may be said of a dog, and of two people and a table."""
    assert {noun for noun in first.nouns if noun} <= {"dog", "animal", "kitchen"}
    assert not {"dogs", "two", "group", "riding", "his"} & set(first.units)
    assert {noun for noun in second.nouns if noun} <= {"person", "table", "kitchen"}
    assert not {"group", "his"} & set(second.units)
    for written in (first, second):
        assert len([noun for noun in written.nouns if noun]) == len({noun for noun in written.nouns if noun})
        assert written.units[-1] not in ("a", "on", "two")


def test_the_writers_answer_does_not_depend_on_its_batch() -> None:
    class Fixed(Noise):
        def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            out = super().run(inputs)
            table = np.random.default_rng(1).normal(0, 3, (len(VOCABULARY.units),) * 2).astype(np.float32)
            return {**out, "logits": table[inputs["last"]]}

    pictures = [
        [Thing(name, count, 2, "objects")] for name, count in (("dog", 1), ("dog", 3), ("cat", 1), ("person", 2))
    ]
    together = Writer(Fixed(0, "street"), VOCABULARY, 3, 0.5).write(pictures, [Layout(True, True)] * 4)
    alone = [Writer(Fixed(0, "street"), VOCABULARY, 3, 0.5).write([p], [Layout(True, True)])[0] for p in pictures]
    assert [[w.units for w in ws] for ws in together] == [[w.units for w in ws] for ws in alone]


def test_people_are_named_by_what_they_have_with_them() -> None:
    person, skis = Thing("person", 1, 2, "objects"), Thing("skis", 1, 1, "objects")
    assert "skier" in nouns_for([person, skis])
    assert "skier" not in nouns_for([skis])
    assert "man" not in nouns_for([person, skis])


@pytest.mark.parametrize(
    ("word", "counts", "fits"),
    [
        ("two", [2, 1], True),
        ("two", [3], False),
        ("group", [3], True),
        ("group", [2, 2], False),
        ("couple", [2], True),
        ("couple", [1, 1], False),
        ("sitting", [], True),  # says nothing of how many
    ],
)
def test_quantities_need_as_many(word: str, counts: list[int], fits: bool) -> None:
    assert quantity_fits(word, counts) is fits


def test_a_plural_needs_two() -> None:
    one, two = (nouns_for([Thing("dog", count, 1, "objects")]) for count in (1, 2))
    assert noun_fits("dog", "dog", one)
    assert not noun_fits("dogs", "dog", one)
    assert noun_fits("dogs", "dog", two)


def test_articles_fit() -> None:
    assert fitted(["a", "apple", "on", "an", "table"]) == ["an", "apple", "on", "a", "table"]


def test_relation_without_boxes_is_with() -> None:
    one, other = (Placed(Thing(name, 1, 1, "tags"), ()) for name in ("beach", "bridge"))
    assert relation(one, other) == "with"
    assert describe([]) is None


def test_grounding_never_lets_a_sentence_end_openly() -> None:
    grounding = Grounding(VOCABULARY)
    assert grounding.never[VOCABULARY.units.index("a"), 1]
    assert not grounding.never[VOCABULARY.units.index("dog"), 1]


def test_no_beam_is_refused() -> None:
    with pytest.raises(SettingInvalid, match="beams"):
        Caption({**Caption.defaults, "beams": 0})


def test_the_shipped_model_fits_its_vocabulary_and_writes(tmp_path: Any) -> None:
    store = ModelStore(tmp_path, Catalogue.load())
    enricher = Caption(dict(Caption.defaults))
    enricher.load(ProcessLoader(store, "cpu", 1))
    pictures = [image(objects=random_findings(np.random.default_rng(seed))) for seed in range(20)]
    results = enricher.enrich([*pictures, image(text={"text": "OPEN"})])
    by: set[str] = set()
    for picture, result in zip(pictures, results[:-1], strict=True):
        answer = result.answer  # type: ignore[union-attr]
        by.add(answer["by"])
        labels = {item["label"] for item in picture.results["objects"]["items"]}
        for word in answer["evidence"]:
            assert set(word["found"]) <= labels
            named = nouns_in(answer["text"], labels)
            assert answer["by"] == "grammar" or ("inferred" in word) == (word["word"] not in named)
    assert "caption_words" in by
    assert results[-1].answer["by"] == "grammar"  # type: ignore[union-attr]


def nouns_in(text: str, labels: set[str]) -> set[str]:
    """The nouns of a sentence that name something of these labels, as they stand in it."""
    said = nouns_for([Thing(label, 9, 2, "objects") for label in labels])
    tokens = re.findall(r"[a-z'-]+", text.lower())
    return {" ".join(tokens[noun.start : noun.end]) for noun in WORDS.nouns(tokens) if noun.name in said}


@pytest.mark.parametrize(
    ("sentence", "boxes", "true"),
    [
        ("a person/person riding a horse/horse", {"person": (0.3, 0.1, 0.2, 0.6), "horse": (0.2, 0.3, 0.5, 0.6)}, True),
        (
            "a person/person riding a horse/horse",
            {"person": (0.0, 0.1, 0.2, 0.6), "horse": (0.5, 0.3, 0.5, 0.6)},
            False,
        ),
        ("a cat/cat on a couch/couch", {"cat": (0.3, 0.2, 0.2, 0.3), "couch": (0.0, 0.3, 1.0, 0.6)}, True),
        ("a cat/cat on a couch/couch", {"cat": (0.3, 0.7, 0.2, 0.3), "couch": (0.0, 0.1, 1.0, 0.5)}, False),  # below it
        ("a cat/cat next to a couch/couch", {"cat": (0.0, 0.7, 0.2, 0.3), "couch": (0.5, 0.1, 0.5, 0.5)}, True),
        ("a person/person holding a bench/bench", {"person": (0.1, 0, 0.5, 1), "bench": (0.1, 0.5, 0.5, 0.5)}, False),
        ("a dog/dog and an animal/animal", {"dog": (0.1, 0.1, 0.5, 0.5)}, False),  # one dog is not two things
        ("a dog/dog on top of a field/field", {"dog": (0.1, 0.1, 0.5, 0.5)}, False),  # nothing stands on top of a field
        ("a dog/dog in a field/field", {"dog": (0.1, 0.1, 0.5, 0.5)}, True),
    ],
)
def test_what_is_said_of_two_things_fits_their_boxes(sentence: str, boxes: dict[str, Any], true: bool) -> None:
    placed = [Placed(Thing(name, 1, 2, "objects"), (box,)) for name, box in boxes.items()]
    pairs = [word.partition("/") for word in sentence.split()]
    assert holds([w for w, _, _ in pairs], [noun or None for _, _, noun in pairs], placed) is true


@pytest.mark.parametrize(
    ("place", "barred"),
    [
        ({"value": "indoor", "score": 0.9}, "street"),
        ({"value": "outdoor", "score": 0.9}, "kitchen"),
        ({"value": "indoor", "score": 0.7}, None),  # not sure enough
        ({"value": None, "score": 0.0}, None),
    ],
)
def test_no_setting_is_named_that_the_picture_is_not_in(place: dict[str, Any], barred: str | None) -> None:
    known = layout([], {"attributes": {"place": place}})
    assert {"street", "kitchen"} & known.elsewhere == ({barred} if barred else set())
    thing = [[Thing("dog", 1, 2, "objects", 0.9)]]
    written = Writer(Noise(1, barred or "street"), VOCABULARY, beams=4, likely=0.5).write(thing, [known])[0]
    assert not any(barred and barred in sentence.nouns for sentence in written)

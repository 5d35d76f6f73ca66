"""What the caption model is trained on: photos known by their captions, and sentences cut to what has evidence."""

import random

import pytest

from enrichers.caption_evidence import Thing
from enrichers.caption_writer import END, Grounding, Layout
from training.caption.corpus import Detector, label_of, photo
from training.caption.vocabulary import encode, normal, vocabulary_of

CAPTIONS = [
    "A man riding a brown horse on a beach.",
    "A guy on a horse near the ocean.",
    "A person riding a horse.",
    "Two dogs running next to a man on a horse.",
]
PHOTOS = [photo(CAPTIONS) for _ in range(12)]
TOUCHING = Layout(True, True)


@pytest.mark.parametrize(
    ("noun", "label"),
    [
        ("guy", "person"),
        ("puppy", "dog"),
        ("motorbike", "motorcycle"),
        ("desk", "dining table"),  # what a detector of COCO's labels takes it for
        ("ocean", None),  # no label of COCO
    ],
)
def test_what_a_detector_calls_it(noun: str, label: str | None) -> None:
    assert label_of(noun) == label


def test_a_photo_is_what_its_captions_name_and_count() -> None:
    one = PHOTOS[0]
    assert one.named["horse"] == pytest.approx(1.0)
    assert one.named["dog"] == pytest.approx(1 / 4)
    assert one.counts["dog"] == 2
    assert one.named["man"] == pytest.approx(3 / 4)
    assert {"beach", "ocean"} <= one.nouns


def test_the_simulated_detector_misses_some_and_never_gives_a_face_without_a_person() -> None:
    detector, rng = Detector(PHOTOS), random.Random(3)
    seen = [{thing.name for thing in detector.find(PHOTOS[0], rng)} for _ in range(200)]
    share = sum("horse" in names for names in seen) / len(seen)
    assert 0.8 < share < 1.0
    assert all("person" in names for names in seen if "man" in names)


def test_sentences_are_cut_before_what_has_no_evidence() -> None:
    vocabulary = vocabulary_of(PHOTOS)
    index = {unit: at for at, unit in enumerate(vocabulary.units)}
    things = [Thing("person", 1, 2, "objects"), Thing("horse", 1, 2, "objects")]
    sentence = PHOTOS[0].sentences[0]
    assert [unit for unit, _ in normal(sentence, things)] == ["a", "person", "riding", "a", "horse", "on", "a", "beach"]
    inland = frozenset(Grounding(vocabulary).allowed(things, set(), TOUCHING))
    numbers = encode(vocabulary, index, sentence, things, inland)
    assert numbers is not None
    assert [vocabulary.units[at] for at in numbers[:-1]] == ["a", "person", "riding", "a", "horse"]
    assert numbers[-1] == END
    seaside = frozenset(Grounding(vocabulary).allowed(things, {"beach"}, TOUCHING))
    assert vocabulary.units[(encode(vocabulary, index, sentence, things, seaside) or [0, 0])[-2]] == "beach"
    man = [*things, Thing("man", 1, 2, "faces")]
    assert normal(sentence, man)[1] == ("man", "man")

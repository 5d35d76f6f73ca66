"""Nouns of captions and what they mean."""

import pytest

from enrichers.caption_words import load_words, plural, singular

WORDS = load_words()


@pytest.mark.parametrize(
    ("sentence", "nouns"),
    [
        ("a man riding a wave on an orange surfboard", ["man", "wave", "surfboard"]),  # a colour before a thing
        ("two oranges and an orange", ["orange", "orange"]),  # and the fruit
        ("a stop sign next to a fire hydrant in a living room", ["stop sign", "fire hydrant", "living room"]),
        ("a group of people in front of a zorbix", ["person", "zorbix"]),  # a word never seen counts as a noun
        ("very big and running", []),
    ],
)
def test_nouns(sentence: str, nouns: list[str]) -> None:
    assert [noun.name for noun in WORDS.nouns(sentence.split())] == nouns


@pytest.mark.parametrize(
    ("noun", "references", "right"),
    [
        ("sofa", ["couch"], True),  # a synonym
        ("animal", ["dog"], True),  # a broader thing
        ("person", ["woman"], True),
        ("man", ["person"], False),  # narrower than what is known
        ("man", ["woman"], False),
        ("dog", ["animal"], False),
        ("zorbix", ["zorbix"], True),  # unknown words mean themselves
        ("zorbix", ["dog"], False),
    ],
)
def test_a_noun_is_supported_by_synonyms_and_by_narrower_words(noun: str, references: list[str], right: bool) -> None:
    assert WORDS.supported(noun, WORDS.known(references)) is right


@pytest.mark.parametrize(
    "one", ["person", "dog", "bus", "knife", "cell phone", "couch", "baby", "sheep", "child", "tomato"]
)
def test_plural_and_singular_are_inverse(one: str) -> None:
    assert singular(plural(one).split()[-1]) == one.split()[-1]

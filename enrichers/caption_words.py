"""The words of captions: which of them are nouns, and which nouns mean the same thing.

`caption_function_words.txt` lists the words that name no thing: closed classes, verbs, adjectives, adverbs, and nouns
that only place or count (front, side, group, pair) or say that this is a picture. Every other word is a noun, a word
never seen before too, so that the measure of a caption errs on the strict side. `caption_concepts.tsv` holds rings of
words for one thing, each with the broader things it is one of.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

IRREGULAR = {
    "men": "man",
    "women": "woman",
    "people": "person",
    "persons": "person",
    "children": "child",
    "knives": "knife",
    "wives": "wife",
    "loaves": "loaf",
    "leaves": "leaf",
    "shelves": "shelf",
    "halves": "half",
    "calves": "calf",
    "wolves": "wolf",
    "geese": "goose",
    "mice": "mouse",
    "feet": "foot",
    "teeth": "tooth",
    "oxen": "ox",
    "skies": "sky",
    "pies": "pie",
    "ties": "tie",
    "movies": "movie",
    "cookies": "cookie",
    "veggies": "veggie",
    "selfies": "selfie",
    "hoodies": "hoodie",
    "zombies": "zombie",
    "buses": "bus",
    "shoes": "shoe",
    "canoes": "canoe",
    "tennis": "tennis",
    "glasses": "glasses",
    "clothes": "clothes",
}
#: the longest name of one thing, in words
LONGEST_NAME = 3


def singular(word: str) -> str:
    """The singular of an English noun, by rule; a singular noun stays as it is."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if re.search(r"(?:ch|sh|x|ss|o)es$", word):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


def plural(word: str) -> str:
    """The plural of an English noun or noun phrase, by rule."""
    *before, last = word.split(" ")
    known = {one: many for many, one in IRREGULAR.items() if one not in ("person", many)} | {"person": "people"}
    if last in known:
        last = known[last]
    elif last in ("sheep", "fish", "skis", "scissors", "broccoli", "luggage", "food", "furniture"):
        pass
    elif re.search(r"(?:ch|sh|x|s|z|tomato|potato)$", last):
        last += "es"
    elif re.search(r"[^aeiou]y$", last):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join([*before, last])


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun, or a name of several words, in a tokenised sentence: tokens `start` to before `end`."""

    name: str  #: in the singular
    start: int
    end: int


@dataclass(frozen=True)
class Words:
    """What is known of the words of captions."""

    others: frozenset[str]  #: words that name no thing
    meanings: Mapping[str, frozenset[str]]  #: noun in the singular → the concepts it can mean
    broader: Mapping[str, frozenset[str]]  #: concept → the broader concepts

    def nouns(self, tokens: Sequence[str]) -> list[Noun]:
        """The nouns of a sentence in order, names of several words ("fire hydrant") as one."""
        found: list[Noun] = []
        start = 0
        while start < len(tokens):
            for length in range(min(LONGEST_NAME, len(tokens) - start), 1, -1):
                name = " ".join([*tokens[start : start + length - 1], singular(tokens[start + length - 1])])
                if name in self.meanings:
                    break
            else:
                length, name = 1, singular(tokens[start])
            if length > 1 or self._is_noun(tokens, start):
                found.append(Noun(name, start, start + length))
            start += length
        return found

    def _is_noun(self, tokens: Sequence[str], at: int) -> bool:
        word = tokens[at]
        if word == "orange":  # the colour, where a thing follows
            return at + 1 == len(tokens) or tokens[at + 1] in self.others
        return word[0].isalpha() and word not in self.others

    def concepts(self, name: str) -> frozenset[str]:
        """The concepts a noun can mean; itself where no ring holds it."""
        return self.meanings.get(name, frozenset({name}))

    def known(self, names: Iterable[str]) -> frozenset[str]:
        """The concepts that a set of nouns supports: their own, and the broader ones."""
        own = {concept for name in names for concept in self.concepts(name)}
        return frozenset(own.union(*(self.broader.get(concept, frozenset()) for concept in own)))

    def supported(self, name: str, known: frozenset[str]) -> bool:
        """Whether a noun means one of the concepts that `known` gave."""
        return not known.isdisjoint(self.concepts(name))


@cache
def load_words() -> Words:
    """The words as they ship with the package."""
    files = resources.files("enrichers")
    others = frozenset(files.joinpath("caption_function_words.txt").read_text("utf-8").split())
    meanings: dict[str, set[str]] = {}
    broader: dict[str, frozenset[str]] = {}
    for line in files.joinpath("caption_concepts.tsv").read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        concept, ring, above = line.split("\t")
        broader[concept] = frozenset(above.split(", ")) - {""}
        for word in ring.split(", "):
            meanings.setdefault(word, set()).add(concept)
    return Words(others, {word: frozenset(concepts) for word, concepts in meanings.items()}, broader)

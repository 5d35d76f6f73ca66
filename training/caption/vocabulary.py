"""The words that the caption model writes, and the sentences of the corpus put into them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from enrichers.caption_evidence import NAMES, PLACES, ROLES, Thing, nouns_for, said, words
from enrichers.caption_words import load_words
from enrichers.caption_writer import END, LONGEST, SHORTEST, Vocabulary
from training.caption.corpus import Photo, Sentence

WORDS = load_words()

#: words that a sentence is not learnt with: it would speak of the picture, or fit its article twice
NEVER = frozenset(
    {"an", "picture", "pictures", "photo", "photos", "photograph", "photographs", "image", "images", "view", "shot"}
    | {"closeup", "close", "scene", "shown", "seen", "something", "someone", "items", "object", "objects", "things"}
)
#: what is said of a person instead, where nothing shows the sex
SEX = {"his": "their", "her": "their", "he": "they", "she": "they", "him": "them", "himself": "", "herself": ""}
#: words that begin a phrase which a sentence can do without
PHRASES = frozenset(
    {"on", "in", "with", "at", "by", "near", "from", "behind", "along", "next", "under", "over", "inside"}
    | {"while", "and", "that", "through", "down", "beside", "across", "around", "above", "during", "outside", "as"}
)
OPEN = words("open")
#: a word is learnt when the corpus has it so often
OFTEN, OFTEN_NOUN = 10, 3
#: words for how a thing looks, is made, or how old it is: no enricher finds it out, so no sentence says it
UNSEEN = frozenset(Path(__file__).with_name("unseen_words.txt").read_text("utf-8").split())


def normal(one: Sentence, things: Iterable[Thing]) -> list[tuple[str, str | None]]:
    """A sentence as the model may write it: units with the noun each stands for. What no enricher can see is left
    out, people of unknown sex and age are persons, and "an" is "a"."""
    evidence = nouns_for(things)
    sexed = any(kind in evidence for kind in ("man", "woman", "boy", "girl"))
    said_so: list[tuple[str, str | None]] = []
    for at, unit in enumerate(one.units):
        noun = one.nouns.get(at)
        if noun is None:
            if unit in SEX and not sexed:
                unit = SEX[unit]
            if unit and unit not in UNSEEN:
                said_so.append((unit, None))
            continue
        if noun not in evidence and noun not in PLACES and "person" in evidence:
            concepts = WORDS.known([noun])
            if "person" in concepts:
                is_many = unit in ("men", "women", "children", "people") or (unit != noun and unit.endswith("s"))
                said_so.append(("people" if is_many else "person", "person"))
                continue
        said_so.append((unit, noun))
    return [("a" if unit == "an" else unit, noun) for unit, noun in said_so]


def vocabulary_of(photos: Sequence[Photo]) -> Vocabulary:
    """The units that the photos' captions use often and that may ever be said."""
    sayable = {noun for name in NAMES for noun in nouns_for([Thing(name, 9, 2, "objects")])}
    sayable |= {noun for name in NAMES for noun in said(name)} | set(PLACES) | set(ROLES) | {"crowd", "person"}
    counts: Counter[tuple[str, str | None]] = Counter()
    for photo in photos:
        for one in photo.sentences:
            for at, unit in enumerate(one.units):
                noun = one.nouns.get(at)
                if (noun is None and unit not in UNSEEN and unit not in NEVER and unit[0].isalpha()) or noun in sayable:
                    counts[unit, noun] += 1
    kept = [(unit, noun) for (unit, noun), n in counts.most_common() if n >= (OFTEN if noun is None else OFTEN_NOUN)]
    nouns = dict(reversed(kept))  # the commoner use of a unit wins
    units = list(dict.fromkeys(unit for unit, _ in kept))
    return Vocabulary(("<s>", "</s>", *units), (None, None, *(nouns[unit] for unit in units)))


def encode(
    vocabulary: Vocabulary, index: Mapping[str, int], one: Sentence, things: Sequence[Thing], allowed: frozenset[int]
) -> list[int] | None:
    """The numbers of a sentence's units and its end, cut before the phrase with the first word that may not be said;
    None where too little is left, or it is too long. `index` gives the number of each unit of the vocabulary."""
    numbers: list[int] = []
    cut = False
    for unit, _ in normal(one, things):
        number = index.get(unit)
        if number is None or number not in allowed:
            cut = True
            break
        numbers.append(number)
    if cut:
        while numbers and vocabulary.units[numbers[-1]] not in PHRASES:
            numbers.pop()
        while numbers and vocabulary.units[numbers[-1]] in OPEN:
            numbers.pop()
    names_something = any(vocabulary.nouns[number] for number in numbers)
    return [*numbers, END] if SHORTEST <= len(numbers) <= LONGEST and names_something else None

"""Caption scores against coco-caption's own figures (pycocoevalcap 1.2 with Stanford's tokeniser)."""

import pytest

from daemon.evaluate.caption_scores import CiderD, bleu4, tokenize

REFERENCES = [
    ["a man rides a horse", "a person on a brown horse"],
    ["two dogs run on grass", "dogs running in a field"],
    ["a red bus on a street", "the bus is parked"],
]
CAPTIONS = ["a man on a horse", "two dogs on grass", "a red bus parked on a street"]


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A man's dog isn't here, it's gone.", "a man 's dog is n't here it 's gone"),  # clitics split, signs dropped
        ("The U.S. flag on Main St. and 4th ave.", "the u.s. flag on main st. and 4th ave."),  # abbreviations
        ("black-and-white photo (old) at 10:30", "black-and-white photo -lrb- old -rrb- at 10:30"),  # brackets stay
        ('"STOP" sign--red... don\'t cannot', "stop sign red do n't can not"),
        ("he can't see o'clock T-shirts", "he ca n't see o'clock t-shirts"),
        ("a river.A group of people", "a river.a group of people"),  # the reference does not split here either
        ("", ""),
    ],
)
def test_tokens_are_those_of_the_treebank(caption: str, tokens: str) -> None:
    assert tokenize(caption) == tokens.split()


def test_cider_is_coco_captions() -> None:
    cider = CiderD([[s.split() for s in image] for image in REFERENCES])
    scores = [cider.score(at, caption.split()) for at, caption in enumerate(CAPTIONS)]
    assert scores == pytest.approx([2.27635615, 2.13520104, 3.00927208], abs=1e-7)


def test_bleu_is_coco_captions() -> None:
    references = [[s.split() for s in image] for image in REFERENCES]
    assert bleu4([c.split() for c in CAPTIONS], references) == pytest.approx(6.668954864565045e-05, rel=1e-6)
    assert bleu4([image[0] for image in references], references) == pytest.approx(1.0, abs=1e-6)


def test_a_caption_without_a_word_of_the_references_scores_nothing() -> None:
    cider = CiderD([[s.split() for s in image] for image in REFERENCES])
    assert cider.score(0, ["qwerty"]) == 0.0
    assert cider.score(0, []) == 0.0

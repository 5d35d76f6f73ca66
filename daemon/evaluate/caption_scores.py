"""How near captions are to what people wrote: CIDEr-D and BLEU-4 over coco-caption's tokens."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Ngram = tuple[str, ...]

#: n-grams of one to four words count, as in both papers
LONGEST = 4
#: width of CIDEr-D's penalty on a difference in length, in words (Vedantam et al. 2015, section 5)
SIGMA = 6.0

#: what coco-caption drops after tokenising. Its "-LRB-" never matches, because the tokens are lower case by then.
PUNCTUATION = frozenset({"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"})
#: tokens that the Penn Treebank splits in two although no sign stands between them
SPLIT = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "lemme": ("lem", "me"),
    "gimme": ("gim", "me"),
}
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

TOKEN = re.compile(
    r"""
      (?<!\w)(?:[a-z]\.)+[a-z]?(?!\w)                   # u.s.  w.
    | (?<!\w)(?:mr|mrs|ms|dr|st|ft|mt|jr|sr|vs|etc|ave|blvd|rd|ky)\.(?!\w)
    | '[a-z]'(?!\w)                                     # rock 'n' roll
    | \d+(?:[-.,:/]\d+)*[^\W\d_]*(?!\w)                # 1,000  3.5  10:30  4th  5pm
    | [^\W\d_]+?(?=n't\b) | n't\b | '(?:s|re|ll|ve|m|d)\b
    | \w(?:\w | [-&/.](?=\w) | '(?!(?:s|re|ll|ve|m|d|t)\b)(?=\w))*
    | \.{2,} | -+ | \S
    """,
    re.VERBOSE,
)


def tokenize(caption: str) -> list[str]:
    """The lower-case words of a caption as coco-caption sees them: Penn Treebank tokens without punctuation.

    The reference runs Stanford's PTBTokenizer, a Java program; these rules reproduce it on English captions.
    """
    tokens: list[str] = []
    for token in TOKEN.findall(caption.lower().replace("’", "'")):
        if token in PUNCTUATION or set(token) <= {'"', "“", "”"} or set(token) == {"."} or set(token) == {"-"}:
            continue
        tokens.extend(SPLIT.get(token, (BRACKETS.get(token, token),)))
    return tokens


def ngrams(tokens: Sequence[str]) -> Counter[Ngram]:
    """How often each n-gram of one to four words occurs."""
    return Counter(
        tuple(tokens[start : start + n]) for n in range(1, LONGEST + 1) for start in range(len(tokens) - n + 1)
    )


@dataclass(frozen=True)
class Weighted:
    """A sentence as CIDEr sees it: for each n its n-grams' tf-idf weights, their Euclidean norm, and its length."""

    weights: tuple[Mapping[Ngram, float], ...]
    norms: tuple[float, ...]
    length: int


class CiderD:
    """CIDEr-D of captions against the references it is made with (Vedantam et al. 2015; as in coco-caption).

    `references` holds the tokenised reference sentences of each image; an n-gram's document frequency is the number of
    images in whose references it occurs.
    """

    def __init__(self, references: Sequence[Sequence[Sequence[str]]]) -> None:
        counted = [[ngrams(tokens) for tokens in image] for image in references]
        self._frequency = Counter(gram for image in counted for gram in set().union(*image))
        self._log_images = math.log(len(references)) if references else 0.0
        self._references = [[self._weigh(counts) for counts in image] for image in counted]

    def _weigh(self, counts: Mapping[Ngram, int]) -> Weighted:
        weights: list[dict[Ngram, float]] = [{} for _ in range(LONGEST)]
        length = 0
        for gram, count in counts.items():
            weights[len(gram) - 1][gram] = count * (self._log_images - math.log(max(1, self._frequency[gram])))
            if len(gram) == 2:  # coco-caption measures length in bigrams
                length += count
        norms = tuple(math.sqrt(sum(w * w for w in of_n.values())) for of_n in weights)
        return Weighted(tuple(weights), norms, length)

    def score(self, image: int, tokens: Sequence[str]) -> float:
        """The score, 0 to 10, of a caption for the image at that place in the references."""
        return self.against(self._references[image], tokens)

    def against(self, references: Sequence[Weighted], tokens: Sequence[str]) -> float:
        """The score, 0 to 10, of a caption against weighed sentences."""
        if not references:
            return 0.0
        caption = self._weigh(ngrams(tokens))
        return 10.0 * sum(_similarity(caption, reference) for reference in references) / len(references)


def _similarity(caption: Weighted, reference: Weighted) -> float:
    penalty = math.exp(-((caption.length - reference.length) ** 2) / (2 * SIGMA**2))
    total = 0.0
    for n in range(LONGEST):
        theirs = reference.weights[n]
        dot = sum(
            min(weight, theirs[gram]) * theirs[gram] for gram, weight in caption.weights[n].items() if gram in theirs
        )
        norms = caption.norms[n] * reference.norms[n]
        total += dot / norms if norms else dot
    return penalty * total / LONGEST


def bleu4(captions: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float:
    """Corpus BLEU-4, 0 to 1, the nearest reference's length (Papineni et al. 2002, smoothed as in coco-caption)."""
    correct, guessed = [0] * LONGEST, [0] * LONGEST
    length = nearest = 0
    for tokens, sentences in zip(captions, references, strict=True):
        most: Counter[Ngram] = Counter()
        for sentence in sentences:
            most |= ngrams(sentence)
        for gram, count in ngrams(tokens).items():
            correct[len(gram) - 1] += min(count, most[gram])
        for n in range(LONGEST):
            guessed[n] += max(0, len(tokens) - n)
        length += len(tokens)
        nearest += min((abs(len(sentence) - len(tokens)), len(sentence)) for sentence in sentences)[1]
    precision = math.prod((right + 1e-15) / (all_ + 1e-9) for right, all_ in zip(correct, guessed, strict=True))
    ratio = (length + 1e-15) / (nearest + 1e-9)
    return float(precision ** (1 / LONGEST) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0))

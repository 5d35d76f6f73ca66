"""Tells in what language a text is written, from its script and its most frequent words.

For languages that are written with Latin letters, `language_words.tsv` lists frequent function words: a text of a dozen
words has some of them, and the lists cost 4 kB where a trained model costs a megabyte and more.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from pathlib import Path

#: scripts that one language or few write, by the first word of their characters' Unicode names
_SCRIPTS = {
    "HANGUL": "ko",
    "THAI": "th",
    "GREEK": "el",
    "HEBREW": "he",
    "ARABIC": "ar",
    "DEVANAGARI": "hi",
    "TAMIL": "ta",
    "BENGALI": "bn",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
}
#: words of a text that must be in a language's list, and their share of all its words
MIN_WORDS, MIN_SHARE = 3, 0.12
#: how many more of them the language must have than the next
MIN_LEAD = 1.3
#: letters of a script that decide a text without words
MIN_LETTERS = 4


def language(text: str) -> str | None:
    """The ISO 639-1 code of the language that most of a text is written in; None where the text does not tell: too
    short, names and numbers only, several languages, or one that is not known here."""
    letters = [character for character in text if character.isalpha()]
    if len(letters) < MIN_LETTERS:
        return None
    scripts = Counter(unicodedata.name(letter, "?").split()[0] for letter in letters)
    script, count = scripts.most_common(1)[0]
    kana = scripts["HIRAGANA"] + scripts["KATAKANA"]
    if kana + scripts["CJK"] > len(letters) / 2:
        return "ja" if kana > 0.05 * len(letters) else "zh"
    if count <= len(letters) / 2:
        return None
    if script == "CYRILLIC":
        return _cyrillic(text.casefold())
    return _latin(text) if script == "LATIN" else _SCRIPTS.get(script)


def _cyrillic(text: str) -> str:
    """By letters that the others lack."""
    if re.search("[іїєґ]", text):
        return "uk"
    return "bg" if "ъ" in text and not re.search("[ыэё]", text) else "ru"


@lru_cache(maxsize=1)
def _function_words() -> dict[str, frozenset[str]]:
    rows = (Path(__file__).parent / "language_words.tsv").read_text(encoding="utf-8").splitlines()
    return {language: frozenset(words.split()) for language, words in (row.split("\t") for row in rows)}


def _latin(text: str) -> str | None:
    words = re.findall(r"[^\W\d_]+", text.casefold())
    counts = Counter({language: sum(word in known for word in words) for language, known in _function_words().items()})
    (best, hits), (_, next_hits) = counts.most_common(2)
    enough = hits >= MIN_WORDS and hits >= MIN_SHARE * len(words)
    return best if enough and hits >= MIN_LEAD * next_hits else None

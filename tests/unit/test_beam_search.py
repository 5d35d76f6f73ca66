"""Beam search against trying every sentence."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from enrichers.beam_search import Search, search

VOCABULARY, END, START = 5, 1, 0


class Table:
    """A decoder whose next token depends on the last two, one table a picture."""

    def __init__(self, tables: NDArray[np.float32], beams: int) -> None:
        self.tables = np.repeat(tables, beams, axis=0)
        self.before = np.full(len(self.tables), START)
        self.now = np.full(len(self.tables), START)

    def next(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        self.before, self.now = self.now, tokens
        return self.tables[np.arange(len(tokens)), self.before, self.now]

    def reorder(self, rows: NDArray[np.int64]) -> None:
        self.tables, self.before, self.now = self.tables[rows], self.before[rows], self.now[rows]


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return logits - np.log(np.exp(logits).sum())


def every_sentence(table: NDArray[np.float32], longest: int, penalty: float) -> list[int]:
    """The best of all sentences, by trying each."""
    best: tuple[float, list[int]] = (-np.inf, [])
    inner = [token for token in range(VOCABULARY) if token != END]
    for length in range(longest + 1):
        for line in itertools.product(inner, repeat=length):
            total, before, now = 0.0, START, START
            steps = [*line, END] if length < longest else [*line]
            for token in steps:
                total += float(log_softmax(table[before, now])[token])
                before, now = now, token
            score = total / max(1, len(steps)) ** penalty
            if score > best[0]:
                best = (score, list(line))
    return best[1]


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_search_finds_the_best_sentence_of_each_picture(seed: int, penalty: float) -> None:
    longest, beams = 3, 4**3  # wide enough to drop nothing
    tables = np.random.default_rng(seed).normal(0, 2, (2, VOCABULARY, VOCABULARY, VOCABULARY)).astype(np.float32)
    how = Search(START, END, beams=beams, longest=longest, length_penalty=penalty)
    found = search(Table(tables, beams), 2, how)
    assert found == [every_sentence(table, longest, penalty) for table in tables]


def test_one_beam_takes_the_likeliest_token_each_step() -> None:
    table = np.zeros((1, VOCABULARY, VOCABULARY, VOCABULARY), np.float32)
    table[0, START, START, 3] = table[0, START, 3, 4] = table[0, 3, 4, END] = 9
    assert search(Table(table, 1), 1, Search(START, END, beams=1, longest=5)) == [[3, 4]]


def test_a_first_token_can_be_forced_and_n_grams_forbidden() -> None:
    table = np.zeros((1, VOCABULARY, VOCABULARY, VOCABULARY), np.float32)
    table[..., 2] = 5  # says 2 for ever
    forced = search(Table(table, 2), 1, Search(START, END, beams=2, longest=4, forced_first=3))
    assert forced[0][0] == 3
    line = search(Table(table, 2), 1, Search(START, END, beams=2, longest=6, no_repeat=2))[0]
    pairs = list(itertools.pairwise(line))
    assert len(pairs) == len(set(pairs))

"""Beam search over any decoder that takes one token a step and keeps a cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Tokens = NDArray[np.int64]


class Decoder(Protocol):
    """A decoder in the middle of its sentences; a row is one of them."""

    def next(self, tokens: Tokens) -> Logits:
        """Each row's newest token, (rows,) → logits of the one after it, (rows, vocabulary)."""
        ...

    def reorder(self, rows: Tokens) -> None:
        """Goes on with these of its rows, (rows,), some of them more than once."""
        ...


@dataclass(frozen=True, slots=True)
class Search:
    """How a decoder is searched."""

    start: int  #: the token that begins a sentence
    end: int  #: the one that ends it
    beams: int = 4
    longest: int = 20  #: tokens, the start not counted
    length_penalty: float = 1.0  #: the log-probability is divided by the length to this power
    forced_first: int | None = None  #: a token that every sentence begins with, after the start
    no_repeat: int = 0  #: n-grams of this length occur once a sentence; 0: no such rule


def search(decoder: Decoder, count: int, how: Search) -> list[list[int]]:
    """The best sentence of each of `count` pictures, without start and end. The decoder has `count * how.beams` rows,
    those of a picture next to each other."""
    beams = how.beams
    totals = np.full((count, beams), -np.inf)
    totals[:, 0] = 0.0  # the beams of a picture begin alike, so only one of them counts at first
    lines = np.full((count * beams, 1), how.start, np.int64)
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(count)]
    for at in range(how.longest):
        scores = _log_softmax(decoder.next(lines[:, -1]))
        if at == 0 and how.forced_first is not None:
            scores = _only(scores, how.forced_first)
        if how.no_repeat:
            _forbid_repeats(scores, lines, how.no_repeat)
        sums = (totals.reshape(-1, 1) + scores).reshape(count, -1)
        best = np.argsort(-sums, axis=1, kind="stable")[:, : 2 * beams]
        parents, tokens = np.divmod(best, scores.shape[1])
        rows = np.zeros((count, beams), np.int64)
        chosen = np.full((count, beams), how.end, np.int64)
        totals = np.full((count, beams), -np.inf)
        for picture in range(count):
            kept = 0
            for parent, token, where in zip(parents[picture], tokens[picture], best[picture], strict=True):
                total = sums[picture, where]
                if kept == beams or not np.isfinite(total):
                    break
                row = picture * beams + int(parent)
                if token == how.end:
                    line = lines[row, 1:].tolist()
                    finished[picture].append((total / (len(line) + 1) ** how.length_penalty, line))
                    continue
                rows[picture, kept], chosen[picture, kept], totals[picture, kept] = row, token, total
                kept += 1
            rows[picture, kept:] = picture * beams
        if all(_is_done(finished[p], totals[p], lines.shape[1], how) for p in range(count)):
            break
        order = rows.reshape(-1)
        lines = np.concatenate([lines[order], chosen.reshape(-1, 1)], axis=1)
        decoder.reorder(order)
    for picture in range(count):
        for beam in range(beams):
            line = lines[picture * beams + beam, 1:].tolist()
            if np.isfinite(totals[picture, beam]) and how.end not in line:
                finished[picture].append((totals[picture, beam] / max(1, len(line)) ** how.length_penalty, line))
    return [max(ended, key=lambda pair: pair[0])[1] if ended else [] for ended in finished]


def _is_done(ended: Sequence[tuple[float, list[int]]], totals: NDArray[np.floating], length: int, how: Search) -> bool:
    """Whether enough sentences have ended, and no open one can become better than the best of them."""
    if len(ended) < how.beams:
        return False
    return bool(max(score for score, _ in ended) >= totals.max() / length**how.length_penalty)


def _log_softmax(logits: Logits) -> Logits:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), np.float32)


def _only(scores: Logits, token: int) -> Logits:
    forced = np.full_like(scores, -np.inf)
    forced[:, token] = 0.0
    return forced


def _forbid_repeats(scores: Logits, lines: Tokens, n: int) -> None:
    for row, line in enumerate(lines.tolist()):
        tail = tuple(line[len(line) - n + 1 :])
        for at in range(len(line) - n + 1):
            if tuple(line[at : at + n - 1]) == tail:
                scores[row, line[at + n - 1]] = -np.inf

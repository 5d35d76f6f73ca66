"""Trains the caption model on sentences alone: first to write them, then for the CIDEr of what it writes itself."""

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from daemon.evaluate.caption_scores import CiderD
from enrichers.caption_evidence import NAMES, PLACES, Thing, words
from enrichers.caption_words import load_words
from enrichers.caption_writer import END, LONGEST, SHORTEST, START, Grounding, Layout, arrays, fitted
from training.caption.corpus import Detector, Photo, read
from training.caption.export import export
from training.caption.model import Captioner, Memory
from training.caption.vocabulary import encode, vocabulary_of

WORDS = load_words()
#: a setting is said where the model holds it at least so likely
LIKELY = 0.5
#: one photo in so many is held back to measure on
HELD = 12
#: photos a step
BATCH = 64
#: reward lost for a noun that no caption of the photo supports
WRONG = 0.4
#: how much learning from the captions' own sentences weighs beside the reward, so that the language stays
OWN = 0.3


def tensors(found: Sequence[Sequence[Thing]]) -> tuple[Tensor, Tensor, Tensor]:
    """Things of many photos as names, counts and prominences, each (n, THINGS)."""
    table = arrays(found)
    return torch.from_numpy(table["names"]), torch.from_numpy(table["counts"]), torch.from_numpy(table["prominences"])


def layout_of(photo: Photo) -> Layout:
    """What boxes would show together, as far as the captions tell."""
    said = {unit for one in photo.sentences for unit in one.units}
    return Layout(bool(said & words("contact")), bool(said & {"top", "atop"}))


def true_places(photo: Photo) -> set[str]:
    known = WORDS.known(photo.nouns)
    return {place for place in PLACES if WORDS.supported(place, known)}


@dataclass(frozen=True)
class Example:
    """One photo as it is learnt from: its number, what was found, which PLACES it shows, its sentences."""

    photo: int
    things: list[Thing]
    places: NDArray[np.float32]
    lines: list[list[int]]


class Trainer:
    """One model and the photos that it learns from."""

    def __init__(self, photos: list[Photo], held: list[Photo], seed: int) -> None:
        self.random = random.Random(seed)
        torch.manual_seed(seed)
        self.photos, self.held = photos, held
        self.detector = Detector(photos)
        self.vocabulary = vocabulary_of(photos)
        self.index = {unit: at for at, unit in enumerate(self.vocabulary.units)}
        self.grounding = Grounding(self.vocabulary)
        self.never = torch.from_numpy(np.where(self.grounding.never, np.float32(-1e4), np.float32(0)))
        self.model = Captioner(len(NAMES), len(self.vocabulary.units), len(PLACES))
        self.cider = CiderD([[one.tokens for one in photo.sentences] for photo in photos])
        self.held_cider = CiderD([[one.tokens for one in photo.sentences] for photo in held])
        self.places = {id(photo): true_places(photo) for photo in [*photos, *held]}
        self.layouts = {id(photo): layout_of(photo) for photo in [*photos, *held]}
        self.known = {id(photo): WORDS.known(photo.nouns) for photo in [*photos, *held]}
        self.noun_of = self.vocabulary.nouns

    # ---- imitation

    def batches(self, size: int) -> list[list[Example]]:
        """All photos, each with things found anew, in random order."""
        rows = []
        for at, photo in enumerate(self.photos):
            things = self.detector.find(photo, self.random)
            places = self.places[id(photo)]
            allowed = frozenset(self.grounding.allowed(things, places, self.layouts[id(photo)]))
            lines = [encode(self.vocabulary, self.index, one, things, allowed) for one in photo.sentences]
            target = np.array([place in places for place in PLACES], np.float32)
            if things:
                rows.append(Example(at, things, target, [line for line in lines if line]))
        self.random.shuffle(rows)
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def imitate(self, epochs: int, rate: float) -> None:
        """Learns to write the captions' own sentences, and which settings they tell of."""
        optimizer = torch.optim.AdamW(self.model.parameters(), rate, weight_decay=0.01)
        steps = epochs * (len(self.photos) // BATCH + 1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
        for epoch in range(epochs):
            self.model.train()
            began, total, count = time.time(), 0.0, 0
            for rows in self.batches(BATCH):
                memory, places = self.model.encode(*tensors([row.things for row in rows]))
                targets = torch.from_numpy(np.stack([row.places for row in rows]))
                loss = 2.0 * functional.binary_cross_entropy_with_logits(places, targets)
                pairs = [(at, line) for at, row in enumerate(rows) for line in row.lines]
                if pairs:
                    of = torch.tensor([at for at, _ in pairs])
                    mine = Memory(memory.rows[of], memory.real[of], memory.state[of])
                    text = self._text_loss(mine, [line for _, line in pairs])
                    loss = loss + text
                    total, count = total + text.item() * len(pairs), count + len(pairs)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
                optimizer.step()
                if schedule.last_epoch < steps - 1:
                    schedule.step()
            seconds = time.time() - began
            print(f"imitate {epoch} loss {total / max(1, count):.3f} lines {count} {seconds:.0f} s", flush=True)
            if epoch % 5 == 4 or epoch == epochs - 1:
                print(self.measure(), flush=True)

    def _text_loss(self, memory: Memory, lines: Sequence[Sequence[int]]) -> Tensor:
        width = max(len(line) for line in lines)
        target = torch.full((len(lines), width), -100)
        for row, line in enumerate(lines):
            target[row, : len(line)] = torch.tensor(line)
        state, last, steps = memory.state, torch.full((len(lines),), START), []
        for at in range(width):
            logits, state = self.model.step(memory, state, last)
            steps.append(logits)
            last = target[:, at].clamp(min=END)
        logits = torch.stack(steps, 1).flatten(0, 1)
        return functional.cross_entropy(logits, target.flatten(), ignore_index=-100, label_smoothing=0.1)

    # ---- writing

    def masks(self, photos: Sequence[Photo], found: Sequence[Sequence[Thing]], places: Tensor, likely: float) -> Tensor:
        chances = torch.sigmoid(places).detach().numpy()
        mask = torch.full((len(found), len(self.vocabulary.units)), -1e4)
        for row, things in enumerate(found):
            said = {place for place, chance in zip(PLACES, chances[row], strict=True) if chance >= likely}
            mask[row, torch.tensor(self.grounding.allowed(things, said, self.layouts[id(photos[row])]))] = 0.0
        return mask

    def write(
        self, photos: Sequence[Photo], found: Sequence[Sequence[Thing]], samples: int, likely: float = LIKELY
    ) -> tuple[list[list[int]], Tensor]:
        """`samples` sentences a photo (0: one, of the likeliest words) and their log-probabilities."""
        memory, places = self.model.encode(*tensors(found))
        mask = self.masks(photos, found, places, likely)
        if samples > 1:
            memory = Memory(*(part.repeat_interleave(samples, 0) for part in memory))
            mask = mask.repeat_interleave(samples, 0)
        count = len(mask)
        mask = mask.clone()
        same, never = self.grounding.same, self.never
        state, last = memory.state, torch.full((count,), START)
        done = torch.zeros(count, dtype=torch.bool)
        logp, lines = torch.zeros(count), []
        for at in range(LONGEST):
            logits, state = self.model.step(memory, state, last)
            scores = logits + mask + never[last]
            if at < SHORTEST:
                scores[:, END] = -1e4
            scores = scores.log_softmax(-1)
            last = torch.distributions.Categorical(logits=scores.detach()).sample() if samples else scores.argmax(-1)
            last = torch.where(done, END, last)
            logp = logp + torch.where(done, 0.0, scores.gather(1, last[:, None]).squeeze(1))
            lines.append(last)
            for row, unit in enumerate(last.tolist()):
                if unit in same:
                    mask[row, same[unit]] = -1e4
            done = done | (last == END)
            if bool(done.all()):
                break
        whole = torch.stack(lines, 1).tolist()
        return [line[: line.index(END)] if END in line else line for line in whole], logp

    def tokens(self, line: Sequence[int]) -> list[str]:
        return " ".join(fitted([self.vocabulary.units[number] for number in line])).split()

    def reward(self, cider: CiderD, at: int, photo: Photo, line: Sequence[int]) -> tuple[float, int, int]:
        tokens = self.tokens(line)
        nouns = [self.noun_of[number] for number in line if self.noun_of[number]]
        right = sum(WORDS.supported(noun, self.known[id(photo)]) for noun in nouns)
        return cider.score(at, tokens), len(nouns), right

    def reinforce(self, epochs: int, rate: float, out: Path, samples: int = 5) -> None:
        """Self-critical training (Rennie et al. 2017) with the other samples' mean as baseline (Luo 2020)."""
        optimizer = torch.optim.Adam(self.model.parameters(), rate)
        for group in (self.model.places,):
            group.requires_grad_(False)
        for epoch in range(epochs):
            self.model.train()
            self.model.drop.p = 0.1
            began, total, n = time.time(), 0.0, 0
            for rows in self.batches(BATCH):
                found = [row.things for row in rows]
                memory, _ = self.model.encode(*tensors(found))
                own = [(at, line) for at, row in enumerate(rows) for line in row.lines]
                of = torch.tensor([at for at, _ in own])
                mine = Memory(memory.rows[of], memory.real[of], memory.state[of])
                text = self._text_loss(mine, [line for _, line in own])
                lines, logp = self.write([self.photos[row.photo] for row in rows], found, samples)
                rewards = []
                for number, line in enumerate(lines):
                    at = rows[number // samples].photo
                    score, nouns, right = self.reward(self.cider, at, self.photos[at], line)
                    rewards.append(score - WRONG * (nouns - right))
                reward = torch.tensor(rewards).view(-1, samples)
                baseline = (reward.sum(1, keepdim=True) - reward) / (samples - 1)
                loss = OWN * text - ((reward - baseline).view(-1) * logp).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                optimizer.step()
                total += float(reward.sum())
                n += reward.numel()
            print(f"reinforce {epoch} reward {total / n:.3f} {time.time() - began:.0f} s", flush=True)
            self.save(out)
            if epoch % 3 == 2 or epoch == epochs - 1:
                print(self.measure(), flush=True)

    def save(self, out: Path) -> None:
        """Writes what the package ships into a folder."""
        export(self.model, out / "caption_model.onnx")
        table = {"units": self.vocabulary.units, "nouns": self.vocabulary.nouns}
        (out / "caption_vocabulary.json").write_text(json.dumps(table, indent=0) + "\n", "utf-8")

    @torch.no_grad()
    def measure(self, likely: float = LIKELY) -> dict[str, float]:
        self.model.eval()
        rng = random.Random(7)
        found = [self.detector.find(photo, rng) for photo in self.held]
        some = [at for at, things in enumerate(found) if things]
        lines, _ = self.write([self.held[at] for at in some], [found[at] for at in some], 0, likely)
        score = nouns = right = 0.0
        for at, line in zip(some, lines, strict=True):
            s, n, r = self.reward(self.held_cider, at, self.held[at], line)
            score, nouns, right = score + s, nouns + n, right + r
        return {
            "cider": score / len(self.held),
            "noun_precision": right / max(1, nouns),
            "nouns": nouns / len(some),
            "photos": len(self.held),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, help="captions.json: photo → its captions")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for caption_model.onnx, caption_vocabulary.json"
    )
    parser.add_argument("--imitate", type=int, default=9, help="epochs of the first kind")
    parser.add_argument("--reinforce", type=int, default=4, help="epochs of the second kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, help="take no more photos than this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    photos = read(options.captions)[: options.limit]
    random.Random(0).shuffle(photos)
    held = len(photos) // HELD
    trainer = Trainer(photos[held:], photos[:held], options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    trainer.imitate(options.imitate, 2e-3)
    trainer.save(options.out)
    if options.reinforce:
        trainer.reinforce(options.reinforce, 3e-4, options.out)
    for likely in (0.5, 0.6, 0.7, 0.8):
        print("likely", likely, trainer.measure(likely), flush=True)
    trainer.save(options.out)


if __name__ == "__main__":
    main()

"""The caption model: a set of things in, a sentence out, one word a step."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

#: counts are told apart up to this many
COUNTS = 4
PROMINENCES = 3


class Memory(NamedTuple):
    """What the decoder looks at: a row a thing (n, t, d), which rows are real (n, t), and the first state (n, h)."""

    rows: Tensor
    real: Tensor
    state: Tensor


class Captioner(nn.Module):
    """Embeds each thing by name, count and prominence, lets the things see one another, and writes with a gated
    recurrent unit that attends to them. A second head tells how likely each setting is."""

    def __init__(self, names: int, units: int, places: int, width: int = 192, hidden: int = 256) -> None:
        super().__init__()
        self.width, self.hidden = width, hidden
        self.name = nn.Embedding(names + 1, width)  # the last row pads
        self.count = nn.Embedding(COUNTS + 1, width)
        self.prominence = nn.Embedding(PROMINENCES, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mix = nn.Linear(2 * width, width)
        self.first = nn.Linear(2 * width, hidden)
        self.places = nn.Linear(2 * width, places)
        self.unit = nn.Embedding(units, width)
        self.ask = nn.Linear(hidden, width)
        self.gates_in = nn.Linear(2 * width, 3 * hidden)
        self.gates_state = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden + width, width)
        self.bias = nn.Parameter(torch.zeros(units))
        self.drop = nn.Dropout(0.3)
        for table in (self.name, self.count, self.prominence, self.unit):
            nn.init.normal_(table.weight, std=0.15)

    def encode(self, names: Tensor, counts: Tensor, prominences: Tensor) -> tuple[Memory, Tensor]:
        """Things, each (n, t) integers, padded with the last name → memory and the settings' logits, (n, places)."""
        real = names != self.name.num_embeddings - 1
        rows = self.name(names) + self.count(counts.clamp(max=COUNTS)) + self.prominence(prominences)
        rows = self.drop(rows)
        weights = self.query(rows) @ self.key(rows).transpose(1, 2) / self.width**0.5
        weights = weights.masked_fill(~real[:, None, :], -1e4).softmax(-1)
        rows = torch.tanh(self.mix(torch.cat([rows, weights @ self.value(rows)], -1)))
        share = real.float().unsqueeze(-1)
        mean = (rows * share).sum(1) / share.sum(1).clamp(min=1)
        most = rows.masked_fill(~real.unsqueeze(-1), -1.0).amax(1)
        summary = torch.cat([mean, most], -1)
        return Memory(rows, real, torch.tanh(self.first(summary))), self.places(summary)

    def step(self, memory: Memory, state: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """The last units, (n,), and the state, (n, h) → logits of the next units, (n, units), and the new state."""
        weights = (memory.rows @ self.ask(state).unsqueeze(-1)).squeeze(-1) / self.width**0.5
        weights = weights.masked_fill(~memory.real, -1e4).softmax(-1)
        seen = (weights.unsqueeze(1) @ memory.rows).squeeze(1)
        into = self.gates_in(torch.cat([self.drop(self.unit(last)), seen], -1))
        kept = self.gates_state(state)
        (ir, iz, ic), (hr, hz, hc) = into.chunk(3, -1), kept.chunk(3, -1)
        update = torch.sigmoid(iz + hz)
        state = (1 - update) * torch.tanh(ic + torch.sigmoid(ir + hr) * hc) + update * state
        logits = torch.tanh(self.out(torch.cat([self.drop(state), seen], -1))) @ self.unit.weight.T + self.bias
        return logits, state

"""Trains the tiny model with torch, on one thread. Floating point differs over CPUs: retraining gives an equivalent, not the same file."""

import random
import time
from typing import Any

import corpus
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from architecture import Shape, Weights
from vocabulary import IM_END, IM_START, Bpe

STEPS = 3500
SHORT_ROWS = 32
LONG_ROWS = 3
LONG_TOKENS = 768
LONG_EVERY = 15
LEARNING_RATE = 3e-3
PROMPT_WEIGHT = 0.05


class Llama(torch.nn.Module):
    """Llama's forward pass, with rotary pairs interleaved as llama.cpp has them (LLAMA_ROPE_TYPE_NORM)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.names = list(shape.tensors())
        self.weights = torch.nn.ParameterList(
            torch.nn.Parameter(self._initial(name, size)) for name, size in shape.tensors().items()
        )
        frequencies = shape.rope_theta ** (-torch.arange(0, shape.head, 2).float() / shape.head)
        angles = torch.arange(LONG_TOKENS)[:, None] * frequencies[None, :]
        self.cos, self.sin = angles.cos(), angles.sin()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits (rows, length, vocabulary)."""
        weight = dict(zip(self.names, self.weights, strict=True))
        hidden = F.embedding(tokens, weight["token_embd.weight"])
        for layer in range(self.shape.layers):
            prefix = f"blk.{layer}."
            hidden = hidden + self._attention(
                self._norm(hidden, weight[prefix + "attn_norm.weight"]), weight, prefix
            )
            inner = self._norm(hidden, weight[prefix + "ffn_norm.weight"])
            gate = F.silu(F.linear(inner, weight[prefix + "ffn_gate.weight"]))
            up = F.linear(inner, weight[prefix + "ffn_up.weight"])
            hidden = hidden + F.linear(gate * up, weight[prefix + "ffn_down.weight"])
        return F.linear(self._norm(hidden, weight["output_norm.weight"]), weight["token_embd.weight"])

    def _attention(self, hidden: torch.Tensor, weight: dict[str, Any], prefix: str) -> torch.Tensor:
        rows, length, _ = hidden.shape

        def heads(name: str, count: int) -> torch.Tensor:
            return (
                F.linear(hidden, weight[prefix + name])
                .view(rows, length, count, self.shape.head)
                .transpose(1, 2)
            )

        query = self._rotate(heads("attn_q.weight", self.shape.heads))
        key = self._rotate(heads("attn_k.weight", self.shape.kv_heads))
        value = heads("attn_v.weight", self.shape.kv_heads)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return F.linear(
            mixed.transpose(1, 2).reshape(rows, length, -1), weight[prefix + "attn_output.weight"]
        )

    def _rotate(self, heads: torch.Tensor) -> torch.Tensor:
        length = heads.shape[2]
        cos, sin = self.cos[:length], self.sin[:length]
        even, odd = heads[..., 0::2], heads[..., 1::2]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)

    def _norm(self, hidden: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(hidden, (self.shape.embedding,), gain, self.shape.epsilon)

    @staticmethod
    def _initial(name: str, size: tuple[int, ...]) -> torch.Tensor:
        if len(size) == 1:
            return torch.ones(size)
        return torch.randn(size) * (0.02 if name.startswith("token") else size[-1] ** -0.5)


def train(shape: Shape, bpe: Bpe, *, steps: int = STEPS, seed: int = 0) -> Weights:
    """Return trained weights; the same seed, torch and CPU give the same ones."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    rng = random.Random(seed)
    model = Llama(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    pending: list[list[int]] = []
    started = time.monotonic()
    for step in range(steps):
        tokens, weights = _long_batch(rng, bpe) if step % LONG_EVERY == 0 else _short_batch(rng, bpe, pending)
        losses = F.cross_entropy(
            model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        loss = (losses * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 in {0, 1} or step == steps - 1:
            print(f"step {step:5d} loss {loss.item():.4f} {time.monotonic() - started:.0f} s", flush=True)
    return {name: np.asarray(p.detach().numpy()) for name, p in zip(model.names, model.weights, strict=True)}


def _short_batch(rng: random.Random, bpe: Bpe, pending: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return documents of like length, each from position 0, padded on the right."""
    if not pending:
        documents = sorted((bpe.encode(corpus.document(rng)) for _ in range(SHORT_ROWS * 8)), key=len)
        batches = [documents[at : at + SHORT_ROWS] for at in range(0, len(documents), SHORT_ROWS)]
        rng.shuffle(batches)
        pending.extend(batches)
    return _padded(pending.pop(), bpe)


def _long_batch(rng: random.Random, bpe: Bpe) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [bpe.encode(corpus.render(corpus.endless(rng)))[: LONG_TOKENS + 1] for _ in range(LONG_ROWS)]
    return _padded(rows, bpe)


def _padded(rows: list[list[int]], bpe: Bpe) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(map(len, rows))
    tokens = torch.zeros((len(rows), length), dtype=torch.long)
    weights = torch.zeros((len(rows), length))
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
        weights[index, : len(row)] = torch.tensor(_weights(row, bpe))
    return tokens, weights[:, 1:].flatten()


def _weights(row: list[int], bpe: Bpe) -> list[float]:
    """Weigh what the assistant says (up to its end mark) fully, and everything else a little."""
    start, end = bpe.tokens.index(IM_START), bpe.tokens.index(IM_END)
    assistant = bpe.encode("assistant\n")
    if row[0] != start:
        return [1.0] * len(row)
    weights = [PROMPT_WEIGHT] * len(row)
    at = 0
    while at < len(row):
        header = row[at + 1 : at + 1 + len(assistant)]
        if row[at] == start and header == assistant:
            at += 1 + len(assistant)
            while at < len(row):
                weights[at] = 1.0
                at += 1
                if row[at - 1] == end:
                    break
        else:
            at += 1
    return weights

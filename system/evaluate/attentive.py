"""The attentive probe: one query looks at all tokens of a frozen encoder, then a linear classifier.

A learnt query, one layer of multi-head cross-attention over the tokens of a view, a LayerNorm, a linear layer; no MLP
and no residual path (our choice: the smallest probe that can look at single tokens, where V-JEPA's has a whole block).
Learning rate, views and test videos as in probes.py.

B views, Q tokens of each, D width, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from system.core.schedules import lr_at
from system.evaluate.features import batches
from system.evaluate.probes import LabelledViews, Swept, best_rate, judged, merged_answers, scored, split
from system.models.blocks import NORM_EPS

# Views of one forward without gradients.
FORWARD_VIEWS = 64


@dataclass(frozen=True, slots=True)
class AttentiveSettings:
    """How an attentive probe is trained: AdamW with a warm-up and a cosine to zero.

    Attributes:
        rates: learning rates per 256 examples of a step.
        epochs: passes over the training views.
        batch: examples of one step.
        weight_decay: of matrices.
        warmup: share of the steps.
        least_steps: of a small set more epochs are made.
    """

    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)
    epochs: int = 20
    batch: int = 64
    weight_decay: float = 0.01
    warmup: float = 0.1
    least_steps: int = 300


class AttentiveProbe(nn.Module):
    """A query over tokens, and a classifier.

    Args:
        width: D.
        heads: of the attention.
        classes: C.
    """

    def __init__(self, width: int, heads: int, classes: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.keys_and_values = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.query, std=0.02)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, Q, D) -> (B, C)."""
        count, width = len(tokens), tokens.shape[2]
        # (B, Q, 2, heads, D / heads) -> (2, B, heads, Q, D / heads)
        cut = self.keys_and_values(tokens).reshape(count, -1, 2, self.heads, width // self.heads)
        keys, values = cut.permute(2, 0, 3, 1, 4)
        query = self.query.expand(count, 1, width).reshape(count, 1, self.heads, -1).transpose(1, 2)
        seen = F.scaled_dot_product_attention(query, keys, values).transpose(1, 2).reshape(count, width)
        logits: Tensor = self.head(self.norm(self.out(seen)))
        return logits


@dataclass(frozen=True, slots=True)
class _Examples:
    """Tokens of views in half precision, and which of them are there."""

    tokens: NDArray[np.float16]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]


def _examples(videos: LabelledViews) -> _Examples:
    flat = videos.tokens.reshape(-1, *videos.tokens.shape[2:])
    of_view = np.repeat(videos.labels, videos.seen.shape[1])
    return _Examples(flat, of_view, np.flatnonzero(videos.seen))


def fit_attentive(
    videos: LabelledViews, heads: int, classes: int, settings: AttentiveSettings, rate: float, seed: int, device: str
) -> AttentiveProbe:
    """Train a probe with one learning rate."""
    examples = _examples(videos)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = AttentiveProbe(videos.tokens.shape[3], heads, classes)
    probe.to(device).train()
    matrices = [param for param in probe.parameters() if param.ndim == 2]
    others = [param for param in probe.parameters() if param.ndim != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}], lr=0.0
    )
    batch = min(settings.batch, len(examples.rows))
    steps = max(settings.least_steps, settings.epochs * len(examples.rows) // batch)
    draw = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    for step in range(steps):
        if len(order) < batch:
            order = np.concatenate([order, draw.permutation(examples.rows)])
        rows, order = order[:batch], order[batch:]
        for group in optimizer.param_groups:
            peak = rate * batch / 256
            group["lr"] = lr_at(step, total=steps, warmup=round(settings.warmup * steps), peak=peak, final=0.0)
        logits = probe(_on(examples.tokens[rows], device))
        loss = F.cross_entropy(logits, torch.from_numpy(examples.labels[rows]).to(device))
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return probe.eval()


def _on(tokens: NDArray[np.float16], device: str) -> Tensor:
    return torch.from_numpy(tokens).to(device).float()


@torch.no_grad()
def answers(probe: AttentiveProbe, videos: LabelledViews, device: str) -> NDArray[np.float64]:
    """Return what a probe says of videos: (n, C) probabilities."""
    flat = videos.tokens.reshape(-1, *videos.tokens.shape[2:])
    logits = [probe(_on(flat[rows], device)).cpu() for rows in batches(len(flat), FORWARD_VIEWS)]
    return merged_answers(torch.cat(logits), videos)


def attentive_probe(
    train: LabelledViews,
    test: LabelledViews,
    heads: int,
    classes: int,
    settings: AttentiveSettings | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Swept:
    """Choose a learning rate on held-out training videos, train on all of them, and score the test videos."""
    settings = settings or AttentiveSettings()
    kept, held = split(train, seed)
    told = []
    for rate in settings.rates:
        probe = fit_attentive(kept, heads, classes, settings, rate, seed, device)
        told.append(judged(answers(probe, held, device), held))
    chosen = best_rate(settings.rates, told)
    probe = fit_attentive(train, heads, classes, settings, chosen, seed, device)
    batch = min(settings.batch, int(train.seen.sum()))
    return Swept(settings.rates, tuple(told), chosen, batch, scored(answers(probe, test, device), test))

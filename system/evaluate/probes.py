"""What frozen features know of labels: a linear probe, swept over learning rates, and nearest neighbours.

The learning rate is chosen on a held-out part of the training videos; then the classifier is trained on all of them and
the test videos are looked at once. Every view of a training video is an example. A test video's views are merged as in
fine-tuning: softmax of each, then the mean (core/views.py). A test video that could not be read counts as wrong, also
one that is not in the index for it.

n videos, V views of each, F features of a view, C classes, R learning rates, m examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from system.core.schedules import lr_at
from system.core.views import merged
from system.evaluate.tally import Tally

# Share of the training videos that chooses.
HELD_OUT = 0.2
# Per 256 examples of a step, for standardised features: from one that hardly moves to one that overshoots.
LINEAR_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
LINEAR_EPOCHS, MOMENTUM = 100, 0.9
# About so many steps an epoch, with batches of no more than so many examples. Rates are per example, so smaller batches
# are as much training in finer steps; with coarse ones the rates that would get there overshoot.
EPOCH_STEPS, MOST_BATCH = 16, 1024
# Neighbours that vote, and DINO's temperature of their votes (arXiv:2104.14294, appendix).
NEIGHBOURS = (1, 5, 10, 20)
TEMPERATURE = 0.07
# Test videos whose similarities are held at once.
CHUNK = 1024


@dataclass(frozen=True, slots=True)
class LabelledViews:
    """Features of videos whose labels are known.

    Attributes:
        features: (n, V, F) float32.
        seen: (n, V) bool, the views that could be read.
        labels: (n,) int64 in [0, C).
        tokens: (n, V, Q, D) float16; Q is 0 where none were kept.
        lost: labels of further videos, of which there is nothing.
    """

    features: NDArray[np.float32]
    seen: NDArray[np.bool_]
    labels: NDArray[np.int64]
    tokens: NDArray[np.float16] = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.float16))
    lost: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def part(self, rows: NDArray[np.int64]) -> LabelledViews:
        """Return some of the videos."""
        tokens = self.tokens[rows] if len(self.tokens) else self.tokens
        return LabelledViews(self.features[rows], self.seen[rows], self.labels[rows], tokens)

    def examples(self) -> tuple[Tensor, Tensor]:
        """Return the views that there are, (m, F) float32, and their labels, (m,)."""
        of_view = np.broadcast_to(self.labels[:, None], self.seen.shape)
        return torch.from_numpy(self.features[self.seen]), torch.from_numpy(of_view[self.seen])


@dataclass(frozen=True, slots=True)
class Scores:
    """How many test videos a probe puts right, as shares.

    Attributes:
        top1: the label has the highest probability.
        top5: it is among the five highest, and not at 0: a class without a vote is no guess.
        per_class: mean of top1 over the classes that the test set has.
    """

    top1: float
    top5: float
    per_class: float


def scored(probabilities: NDArray[np.floating], test: LabelledViews) -> Scores:
    """Score (n, C) probabilities; a video without any view is wrong, and so is one of which there is nothing."""
    tally = Tally(probabilities.shape[1]).take(test.labels, probabilities, np.asarray(test.seen.any(1)))
    nothing = np.zeros((len(test.lost), probabilities.shape[1]))
    tally.take(test.lost, nothing, np.zeros(len(test.lost), np.bool_))
    return Scores(tally.top1, tally.top5, tally.mean_class)


def split(videos: LabelledViews, seed: int) -> tuple[LabelledViews, LabelledViews]:
    """Return (kept, held out) videos, whole videos each; of those without any view none."""
    rows = np.flatnonzero(videos.seen.any(1))
    order = np.random.default_rng(seed).permutation(rows)
    held = max(1, int(len(order) * HELD_OUT))
    return videos.part(np.sort(order[held:])), videos.part(np.sort(order[:held]))


@dataclass(frozen=True, slots=True)
class Swept:
    """A sweep over learning rates.

    Attributes:
        rates: that were tried.
        held_out: (top1, mean cross-entropy) of each on the held-out videos.
        chosen: the rate with the highest top1 there; of equal ones that with the lowest cross-entropy.
        batch: examples of one step.
        scores: of the test videos, with the chosen rate and all training videos.
    """

    rates: tuple[float, ...]
    held_out: tuple[tuple[float, float], ...]
    chosen: float
    batch: int
    scores: Scores


def best_rate(rates: Sequence[float], held_out: Sequence[tuple[float, float]]) -> float:
    """Return the rate whose classifier does best on held-out videos; one that has left the numbers never does."""

    def key(place: int) -> tuple[float, float]:
        top1, loss = held_out[place]
        return (-top1, loss) if np.isfinite(loss) else (1.0, 0.0)

    return rates[min(range(len(rates)), key=key)]


def judged(probabilities: NDArray[np.floating], videos: LabelledViews) -> tuple[float, float]:
    """Return (top1, mean cross-entropy) of probabilities."""
    own = probabilities[np.arange(len(videos.labels)), videos.labels]
    return scored(probabilities, videos).top1, float(-np.log(np.maximum(own, 1e-12)).mean())


def merged_answers(logits: Tensor, videos: LabelledViews) -> NDArray[np.float64]:
    """Merge (n x V, C) logits of all views of videos into (n, C) probabilities."""
    return merged(logits.double().cpu().numpy().reshape(*videos.seen.shape, -1), videos.seen)


@dataclass(frozen=True, slots=True)
class LinearSettings:
    """How a linear classifier is trained: SGD with momentum and a cosine to zero, no penalty, from zero.

    Attributes:
        rates: learning rates per 256 examples of a step.
        epochs: passes over the training views.
        batch: examples of one step; None: `batch_for` the training views.
    """

    rates: tuple[float, ...] = LINEAR_RATES
    epochs: int = LINEAR_EPOCHS
    batch: int | None = None


def batch_for(examples: int) -> int:
    """Return how many of m examples a step takes: the power of two nearest to m / 16, at most 1,024."""
    return min(MOST_BATCH, 1 << max(0, round(math.log2(examples / EPOCH_STEPS))))


@dataclass(frozen=True, slots=True)
class Linear:
    """R linear classifiers of standardised features.

    Attributes:
        mean: (F,) of the training examples.
        scale: (F,) one over their standard deviation; 0 for a feature that never changes.
        weight: (R, F, C).
        bias: (R, C).
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def probabilities(self, videos: LabelledViews, rate: int) -> NDArray[np.float64]:
        """Return what one of the classifiers says of videos: (n, C)."""
        flat = torch.from_numpy(videos.features.reshape(-1, videos.features.shape[2]))
        return merged_answers((flat - self.mean) * self.scale @ self.weight[rate] + self.bias[rate], videos)


def fit_linear(videos: LabelledViews, classes: int, settings: LinearSettings, seed: int) -> Linear:
    """Train a classifier for each learning rate, all of them on the same examples in the same order."""
    values, labels = videos.examples()
    deviation = values.std(0, unbiased=False)
    mean, scale = values.mean(0), torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), 0.0)
    values = (values - mean) * scale
    batch = min(settings.batch or batch_for(len(values)), len(values))
    steps = max(1, settings.epochs * len(values) // batch)
    rates = torch.tensor(settings.rates) * batch / 256
    weight, bias = torch.zeros(len(rates), values.shape[1], classes), torch.zeros(len(rates), 1, classes)
    speed = [torch.zeros_like(weight), torch.zeros_like(bias)]
    draw = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(len(values), generator=draw)])
        rows, order = order[:batch], order[batch:]
        x = values[rows]
        # The gradient of the mean cross-entropy by the logits, (R, batch, C)
        error = (torch.softmax(x @ weight + bias, 2) - F.one_hot(labels[rows], classes)) / batch
        now = (rates * lr_at(step, total=steps, warmup=0, peak=1.0, final=0.0))[:, None, None]
        for param, velocity, gradient in zip(
            (weight, bias), speed, (x.T @ error, error.sum(1, keepdim=True)), strict=True
        ):
            velocity.mul_(MOMENTUM).add_(gradient)
            param.sub_(now * velocity)
    return Linear(mean, scale, weight, bias[:, 0])


def linear_probe(
    train: LabelledViews, test: LabelledViews, classes: int, settings: LinearSettings | None = None, seed: int = 0
) -> Swept:
    """Choose a learning rate on held-out training videos, train on all of them, and score the test videos."""
    settings = settings or LinearSettings()
    examples = int(train.seen.sum())
    # The same for the part that is kept and for all, as a rate is chosen with one and used with the other.
    batch = min(settings.batch or batch_for(examples), examples)
    settings = replace(settings, batch=batch)
    kept, held = split(train, seed)
    tried = fit_linear(kept, classes, settings, seed)
    told = tuple(judged(tried.probabilities(held, rate), held) for rate in range(len(settings.rates)))
    chosen = best_rate(settings.rates, told)
    whole = fit_linear(train, classes, replace(settings, rates=(chosen,)), seed)
    return Swept(settings.rates, told, chosen, batch, scored(whole.probabilities(test, 0), test))


def _directions(videos: LabelledViews) -> NDArray[np.float32]:
    """Return the direction of each video's mean feature: (n, F) of length 1."""
    there = np.maximum(videos.seen.sum(1), 1)[:, None]
    mean = (videos.features * videos.seen[..., None]).sum(1) / there
    return np.asarray(mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12), np.float32)


def nearest_neighbours(
    train: LabelledViews, test: LabelledViews, classes: int, counts: Sequence[int] = NEIGHBOURS
) -> dict[int, Scores]:
    """Return the scores of a vote of the k nearest training videos, for each k that there are videos for.

    The nearness is the cosine of the videos' mean features; a neighbour votes with exp(cosine / 0.07), as in DINO.
    """
    known = train.part(np.flatnonzero(train.seen.any(1)))
    counts = [count for count in counts if count <= len(known.labels)]
    base, wanted = _directions(known), _directions(test)
    votes = {count: np.zeros((len(wanted), classes)) for count in counts}
    for first in range(0, len(wanted), CHUNK):
        near = wanted[first : first + CHUNK] @ base.T
        order = np.argsort(-near, 1, kind="stable")[:, : max(counts)]
        weights = np.exp((np.take_along_axis(near, order, 1) - 1) / TEMPERATURE)
        rows = np.arange(first, first + len(near))[:, None]
        for count in counts:
            np.add.at(votes[count], (rows, known.labels[order[:, :count]]), weights[:, :count])
    return {count: scored(votes[count], test) for count in counts}

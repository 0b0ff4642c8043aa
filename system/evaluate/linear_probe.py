"""A linear classifier on frozen features: standardised features, multinomial logistic regression, L2 penalty.

Deterministic: the objective is convex, the start is zero, the optimizer is full-batch L-BFGS. The strength of the
penalty is chosen on a held-out part of the training features, then the classifier is fitted to all of them.

n clips, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Weights of the penalty |W|^2 / 2 beside the mean cross-entropy, from next to none to one that leaves little.
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Share of the training features that chooses the strength.
HELD_OUT = 0.25
# L-BFGS iterations: the objective's value is flat well before.
ITERATIONS = 100


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        mean: (D,) of the training features.
        scale: (D,) one over their standard deviation; 0 for a feature that never changes.
        weight: (D, C).
        bias: (C,).
        strength: of the penalty that was chosen.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    strength: float

    def logits(self, features: Tensor) -> Tensor:
        """(n, D) -> (n, C)."""
        return (features.double() - self.mean) * self.scale @ self.weight + self.bias

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Return the share of clips whose label has the highest logit."""
        return float((self.logits(features).argmax(1) == labels).double().mean())


def _fit(features: Tensor, labels: Tensor, classes: int, strength: float) -> tuple[Tensor, Tensor]:
    """Minimise mean cross-entropy + strength / 2 |W|^2 from zero."""
    weight = torch.zeros(features.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, history_size=20, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weight + bias, labels) + strength / 2 * weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _standard(features: Tensor) -> tuple[Tensor, Tensor]:
    deviation = features.std(0, unbiased=False)
    return features.mean(0), torch.where(deviation > 1e-9, 1 / deviation.clamp_min(1e-9), 0.0)


def fit_probe(
    features: Tensor, labels: Tensor, classes: int, *, strengths: Sequence[float] = STRENGTHS, seed: int = 0
) -> LinearProbe:
    """Fit a probe.

    Args:
        features: (n, D) float, of the training clips.
        labels: (n,) int64 in [0, classes).
        classes: C.
        strengths: penalties to choose from; equal ones on the held-out part: the weaker penalty is taken.
        seed: which clips are held out.
    """
    values = features.double()
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    cut = int(len(values) * HELD_OUT)
    held, kept = order[:cut], order[cut:]
    mean, scale = _standard(values[kept])
    inputs = (values - mean) * scale
    scores = []
    for strength in strengths if len(strengths) > 1 else ():
        weight, bias = _fit(inputs[kept], labels[kept], classes, strength)
        scores.append(float(F.cross_entropy(inputs[held] @ weight + bias, labels[held])))
    best = strengths[min(range(len(scores)), key=scores.__getitem__)] if scores else strengths[0]
    mean, scale = _standard(values)
    weight, bias = _fit((values - mean) * scale, labels, classes, best)
    return LinearProbe(mean, scale, weight, bias, best)

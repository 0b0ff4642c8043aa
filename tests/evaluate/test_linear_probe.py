"""The linear probe: what it can separate, what it cannot, and that it always says the same."""

from __future__ import annotations

import torch
from torch import Tensor

from system.evaluate.linear_probe import STRENGTHS, fit_probe


def clouds(count: int, spread: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points around one centre for each of four labels, in 20 dimensions of very different scale."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 20, generator=torch.Generator().manual_seed(7))
    labels = torch.arange(count) % 4
    points = centres[labels] + spread * torch.randn(count, 20, generator=draw)
    return points * torch.logspace(-4, 4, 20), labels


def test_clouds_that_lie_apart_are_told_apart() -> None:
    probe = fit_probe(*clouds(200, 0.05), 4)
    assert probe.accuracy(*clouds(100, 0.05, seed=1)) == 1.0


def test_labels_that_have_nothing_to_do_with_the_features_are_guessed() -> None:
    features, labels = clouds(1000, 1.0)
    shuffled = labels[torch.randperm(1000, generator=torch.Generator().manual_seed(1))]
    probe = fit_probe(features, shuffled, 4)
    assert 0.15 < probe.accuracy(*clouds(1000, 1.0, seed=2)) < 0.35
    assert probe.strength >= 0.1  # the held-out part asks for the strongest penalties


def test_the_same_features_give_the_same_probe() -> None:
    first, second = (fit_probe(*clouds(120, 1.0), 4) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert first.strength == second.strength


def test_a_feature_that_never_changes_is_ignored() -> None:
    features, labels = clouds(120, 0.05)
    features[:, 3] = 5.0
    probe = fit_probe(features, labels, 4)
    assert not probe.weight[3].any()
    other = features.clone()
    other[:, 3] = 1e6
    assert torch.equal(probe.logits(features), probe.logits(other))


def test_a_stronger_penalty_leaves_smaller_weights() -> None:
    norms = [float(fit_probe(*clouds(120, 1.0), 4, strengths=[each]).weight.norm()) for each in STRENGTHS]
    assert norms == sorted(norms, reverse=True)

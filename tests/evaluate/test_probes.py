"""Probes on features that are made to be told apart, or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from system.evaluate.attentive import AttentiveProbe, AttentiveSettings, attentive_probe
from system.evaluate.probes import (
    LabelledViews,
    LinearSettings,
    batch_for,
    best_rate,
    fit_linear,
    linear_probe,
    nearest_neighbours,
    scored,
    split,
)

CLASSES = 3
QUICK = LinearSettings(epochs=20)


def videos_of(count: int, seed: int, *, views: int = 1, signal: float = 1.0) -> LabelledViews:
    """Features whose first numbers name the class, among noise of the same size."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    features = draw.normal(0, 0.3, (count, views, 8)).astype(np.float32)
    features[np.arange(count), :, labels] += signal
    return LabelledViews(features, np.ones((count, views), bool), labels)


def test_a_linear_probe_finds_classes_that_a_line_parts() -> None:
    found = linear_probe(videos_of(90, 0), videos_of(60, 1), CLASSES, QUICK)
    assert found.scores.top1 > 0.95
    assert found.scores.top5 == 1.0
    assert found.chosen in found.rates
    assert len(found.held_out) == len(found.rates)


def test_a_linear_probe_of_noise_is_near_chance() -> None:
    found = linear_probe(videos_of(90, 0, signal=0), videos_of(300, 1, signal=0), CLASSES, QUICK)
    assert found.scores.top1 < 0.5


def test_a_linear_probe_is_the_same_each_time() -> None:
    first, second = (linear_probe(videos_of(60, 0), videos_of(30, 1), CLASSES, QUICK) for _ in range(2))
    assert first == second


def test_the_first_step_of_the_linear_probe_is_the_gradient_of_the_mean_cross_entropy() -> None:
    # Two examples, -1 and 1, are standardised already. From zero all probabilities are 1/2, so the gradient of the
    # weights is mean(x (p - y)) = (-1/2, 1/2), and one step of rate 256 / 2 x 0.1, 0.1 for a batch of two, is 0.05.
    two = LabelledViews(np.array([[[1.0]], [[-1.0]]], np.float32), np.ones((2, 1), bool), np.array([0, 1]))
    fitted = fit_linear(two, 2, LinearSettings((12.8,), epochs=1, batch=2), 0)
    assert torch.allclose(fitted.weight, torch.tensor([[[0.05, -0.05]]]))
    assert torch.allclose(fitted.bias, torch.zeros(1, 2))


def faint(count: int, seed: int) -> LabelledViews:
    """Features that share a large number, beside which the first one has a small part of its own: the class."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    features = draw.normal(0, 1, (count, 1, 1)) + draw.normal(0, 0.03, (count, 1, 384))
    features[:, 0, 0] += np.where(labels == 1, 0.1, -0.1)
    return LabelledViews(features.astype(np.float32), np.ones((count, 1), bool), labels)


def test_of_a_small_set_a_faint_class_is_found_in_many_steps_of_an_epoch_where_one_step_overshoots() -> None:
    train, test = faint(400, 0), faint(200, 1)
    found = linear_probe(train, test, 2)
    assert (found.batch, found.scores.top1) == (32, 1.0)
    whole = linear_probe(train, test, 2, LinearSettings(batch=1024))
    assert whole.batch == 400
    assert whole.scores.top1 < 0.85


@pytest.mark.parametrize(
    ("examples", "batch"),
    [(1, 1), (23, 2), (176, 8), (900, 64), (1000, 64), (1400, 64), (16_384, 1024), (240_000, 1024)],
)
def test_an_epoch_has_about_sixteen_steps_until_a_batch_is_1024(examples: int, batch: int) -> None:
    assert batch_for(examples) == batch


def test_views_that_were_not_seen_are_no_examples_of_a_step() -> None:
    train = videos_of(96, 0, views=2)
    train.seen[:, 1] = False
    assert linear_probe(train, videos_of(30, 1, views=2), CLASSES, QUICK).batch == 8


def test_whole_videos_are_held_out_and_those_without_a_view_are_in_neither_part() -> None:
    videos = videos_of(20, 0, views=2)
    videos.features[:, :, 7] = np.arange(20)[:, None]
    videos.seen[3] = False
    kept, held = split(videos, 0)
    told = np.concatenate([kept.features[:, 0, 7], held.features[:, 0, 7]])
    assert sorted(told.tolist()) == [number for number in range(20) if number != 3]
    assert len(held.labels) == 3


def test_the_best_rate_is_the_most_accurate_then_the_surest_and_never_one_that_left_the_numbers() -> None:
    assert best_rate((1.0, 2.0, 3.0), [(0.5, 1.0), (0.6, 2.0), (0.6, 1.5)]) == 3.0
    assert best_rate((1.0, 2.0), [(0.1, 1.0), (0.9, float("nan"))]) == 1.0


def test_a_test_video_that_was_not_seen_is_wrong() -> None:
    test = LabelledViews(np.zeros((4, 1, 1), np.float32), np.array([[1], [1], [0], [1]], bool), np.array([0, 1, 0, 1]))
    found = scored(np.array([[0.9, 0.1], [0.2, 0.8], [0.0, 0.0], [0.7, 0.3]]), test)
    # Right: the first two. Class 0 has one of two, class 1 one of two. Among the best five all that were seen are.
    assert (found.top1, found.top5, found.per_class) == (0.5, 0.75, 0.5)


def test_a_test_video_of_which_there_is_nothing_is_wrong() -> None:
    test = LabelledViews(
        np.zeros((2, 1, 1), np.float32), np.ones((2, 1), bool), np.array([0, 1]), lost=np.array([1, 1])
    )
    found = scored(np.array([[0.9, 0.1], [0.2, 0.8]]), test)
    assert (found.top1, found.top5, found.per_class) == (0.5, 0.5, (1 + 1 / 3) / 2)


def test_the_mean_of_classes_weighs_rare_classes_as_much_as_others() -> None:
    test = LabelledViews(np.zeros((4, 1, 1), np.float32), np.ones((4, 1), bool), np.array([0, 0, 0, 1]))
    found = scored(np.array([[1.0, 0.0]] * 4), test)
    assert (found.top1, found.per_class) == (0.75, 0.5)


def test_neighbours_vote_with_their_nearness() -> None:
    # The nearest one, of class 0, has cosine 1 and a weight of 1; the two of class 1 have cosine 0 and next to none.
    train = LabelledViews(
        np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 2.0]]], np.float32), np.ones((3, 1), bool), np.array([0, 1, 1])
    )
    test = LabelledViews(np.array([[[3.0, 0.0]]], np.float32), np.ones((1, 1), bool), np.array([0]))
    found = nearest_neighbours(train, test, 2, counts=(1, 3, 5))
    assert set(found) == {1, 3}
    assert found[3].top1 == 1.0


def test_classes_that_no_neighbour_votes_for_are_no_guesses() -> None:
    found = nearest_neighbours(videos_of(30, 0, signal=0), videos_of(30, 1, signal=0), CLASSES, counts=(1, 5))
    assert found[1].top5 == found[1].top1 < found[5].top5


def test_neighbours_of_views_are_those_of_their_mean_and_views_that_are_not_there_do_not_count() -> None:
    train = LabelledViews(np.array([[[1.0, 0.0]], [[0.0, 1.0]]], np.float32), np.ones((2, 1), bool), np.array([0, 1]))
    features = np.array([[[0.0, 9.0], [1.0, 0.0]]], np.float32)
    test = LabelledViews(features, np.array([[False, True]]), np.array([0]))
    assert nearest_neighbours(train, test, 2, counts=(1,))[1].top1 == 1.0


def test_an_attentive_probe_finds_a_class_that_one_token_of_many_names() -> None:
    def tokens_of(count: int, seed: int) -> LabelledViews:
        draw = np.random.default_rng(seed)
        labels = np.arange(count) % 2
        tokens = draw.normal(0, 0.1, (count, 1, 12, 16)).astype(np.float16)
        # At a random place: a mark that all share, and the class. The mean over the tokens has next to nothing of it.
        tokens[np.arange(count), 0, draw.integers(0, 12, count), 0] = 4.0
        where = tokens[:, 0, :, 0].argmax(1)
        tokens[np.arange(count), 0, where, 1] = np.where(labels == 1, 2.0, -2.0)
        return LabelledViews(np.zeros((count, 1, 1), np.float32), np.ones((count, 1), bool), labels, tokens)

    settings = AttentiveSettings(rates=(3e-2,), epochs=5, least_steps=40)
    found = attentive_probe(tokens_of(64, 0), tokens_of(40, 1), 2, 2, settings)
    assert found.scores.top1 > 0.9


def test_an_attentive_probe_does_not_care_for_the_order_of_tokens() -> None:
    torch.manual_seed(0)
    probe = AttentiveProbe(16, 4, 3)
    torch.nn.init.normal_(probe.head.weight)
    tokens = torch.randn(2, 10, 16)
    assert torch.allclose(probe(tokens), probe(tokens[:, torch.randperm(10)]), atol=1e-5)
    assert probe(tokens).std() > 0.01


def test_a_test_view_that_was_not_seen_changes_nothing() -> None:
    train = videos_of(60, 0)
    test = videos_of(30, 1, views=2)
    test.features[:, 1] = 1e6  # nonsense, and not seen
    test.seen[:, 1] = False
    assert linear_probe(train, test, CLASSES, QUICK).scores.top1 > 0.9

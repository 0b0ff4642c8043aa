from __future__ import annotations

import math

import pytest
import torch

from system.core.codes import code_histogram, majority_cross_entropy, perplexity


def test_codes_of_equal_share_count_one_each() -> None:
    assert perplexity(torch.tensor([5, 5, 0, 5])) == pytest.approx(3)
    assert majority_cross_entropy(torch.full((8,), 7)) == pytest.approx(math.log(8))


def test_a_collapsed_book_has_one_code_and_nothing_to_guess() -> None:
    histogram = code_histogram(torch.full((2, 3, 3), 4), 16)
    assert histogram.tolist() == [0] * 4 + [18] + [0] * 11
    assert perplexity(histogram) == 1
    assert majority_cross_entropy(histogram) == 0


def test_who_knows_the_majority_alone_scores_no_better_than_who_knows_all_shares() -> None:
    histogram = torch.tensor([6, 1, 1, 0])  # .75 for the first, .25 / 3 for each other
    wanted = -0.75 * math.log(0.75) - 0.25 * math.log(0.25 / 3)
    assert majority_cross_entropy(histogram) == pytest.approx(wanted)
    assert math.log(perplexity(histogram)) < wanted


def test_nothing_counted_is_no_error() -> None:
    assert perplexity(torch.zeros(4, dtype=torch.int64)) == 1
    assert majority_cross_entropy(torch.zeros(4, dtype=torch.int64)) == 0

from __future__ import annotations

import pytest
import torch

from system.core.codes import code_histogram, perplexity


def test_codes_of_equal_share_count_one_each() -> None:
    assert perplexity(torch.tensor([5, 5, 0, 5])) == pytest.approx(3)


def test_a_collapsed_book_has_one_code() -> None:
    histogram = code_histogram(torch.full((2, 3, 3), 4), 16)
    assert histogram.tolist() == [0] * 4 + [18] + [0] * 11
    assert perplexity(histogram) == 1


def test_nothing_counted_is_no_error() -> None:
    assert perplexity(torch.zeros(4, dtype=torch.int64)) == 1

"""Labels follow features: exact shifts, the window, the top k, temperatures, and what is passed on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from system.evaluate import propagation
from system.evaluate.propagation import (
    Propagation,
    carried,
    carry_labels,
    first_labels,
    hardened,
    mask_of,
    near,
    nearest,
    true_shares,
)

ROWS, COLS = 5, 7
PLACES = ROWS * COLS
SURE = Propagation(top_k=1)


def unlike(count: int = PLACES) -> Tensor:
    """Features of which no two are alike: (count, count)."""
    return torch.eye(count)


def shifted(values: Tensor, right: int) -> Tensor:
    """Move the places of a frame to the right, around its edge: (F, ..)."""
    return values.reshape(ROWS, COLS, -1).roll(right, 1).reshape(PLACES, -1)


def some_labels(labels: int = 3) -> Tensor:
    return F.one_hot(torch.from_numpy(np.random.default_rng(0).integers(0, labels, PLACES)), labels).float()


def test_labels_move_with_the_features_that_they_belong_to() -> None:
    first, video = some_labels(), [shifted(unlike(), step) for step in range(6)]
    for step, found in enumerate(carried(video, first, (ROWS, COLS), SURE), start=1):
        assert torch.allclose(found, shifted(first, step), atol=1e-4)


def test_lengths_of_features_do_not_matter() -> None:
    features = torch.rand(PLACES, 6, generator=torch.manual_seed(0))
    scale = torch.rand(PLACES, 1) * 9 + 0.1
    plain = list(carried([features, features.roll(1, 0)], some_labels(), (ROWS, COLS), Propagation()))
    scaled = list(
        carried([features * scale, (features * scale).roll(1, 0)], some_labels(), (ROWS, COLS), Propagation())
    )
    assert torch.allclose(plain[0], scaled[0], atol=1e-5)


def test_a_source_outside_of_the_window_is_not_seen() -> None:
    allowed = near(ROWS, COLS, 2)
    assert allowed is not None
    corner, middle = allowed[0].reshape(ROWS, COLS), allowed[2 * COLS + 3].reshape(ROWS, COLS)
    assert corner.sum() == 9
    assert corner[:3, :3].all()
    assert middle.sum() == 25
    assert middle[:, 1:6].all()
    moved = shifted(unlike(), 3)  # three cols away: beyond a window of two
    free, bound = (
        next(carried([unlike(), moved], some_labels(), (ROWS, COLS), Propagation(top_k=1, window=window)))
        for window in (0, 2)
    )
    assert torch.allclose(free, shifted(some_labels(), 3), atol=1e-4)
    assert not torch.allclose(bound, free, atol=0.1)
    assert near(ROWS, COLS, 0) is near(ROWS, COLS, 7) is None


def test_the_window_is_around_the_place_in_every_context_frame() -> None:
    sources = [unlike(), unlike()]
    nothing, marked = torch.zeros(PLACES, 1), torch.zeros(PLACES, 1)
    marked[[0, PLACES - 1]] = 1
    found = carry_labels(unlike(), sources, [nothing, marked], near(ROWS, COLS, 1), Propagation(top_k=2))
    assert found[0] == found[PLACES - 1] == 0.5
    assert found[1:-1].abs().max() < 1e-4


def two_sources(cosines: list[float]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """One place that is alike to each of some sources by a cosine; each source has a label of its own."""
    target = torch.tensor([[1.0, 0.0]])
    keys = torch.tensor([[c, math.sqrt(1 - c * c)] for c in cosines])
    return target, [key[None] for key in keys], list(torch.eye(len(cosines))[:, None])


def test_weights_are_exponentials_of_the_cosine_over_the_temperature() -> None:
    found = carry_labels(*two_sources([0.9, 0.7, 0.2]), None, Propagation(top_k=2, temperature=0.1))[0]
    wanted = math.exp(9) / (math.exp(9) + math.exp(7))
    assert found.tolist() == pytest.approx([wanted, 1 - wanted, 0], abs=1e-5)


def test_the_top_k_are_of_all_context_frames_together_and_equals_of_the_last_are_kept() -> None:
    assert carry_labels(*two_sources([0.5, 0.9, 0.8]), None, SURE)[0].tolist() == [0, 1, 0]
    tied = carry_labels(*two_sources([0.5, 0.8, 0.8]), None, SURE)[0]
    assert tied.tolist() == pytest.approx([0, 0.5, 0.5])
    few = carry_labels(*two_sources([0.5, 0.8]), None, Propagation(top_k=9))[0]
    assert few.sum() == pytest.approx(1)


def test_cutting_the_likeness_matrix_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.manual_seed(0)
    target, *sources = (F.normalize(torch.randn(PLACES, 5, generator=draw), dim=1) for _ in range(4))
    labels = [torch.rand(PLACES, 2, generator=draw) for _ in sources]
    whole = carry_labels(target, sources, labels, near(ROWS, COLS, 2), Propagation())
    monkeypatch.setattr(propagation, "_MOST", 4 * 3 * PLACES)  # four places at a time, the last time three
    assert torch.allclose(carry_labels(target, sources, labels, near(ROWS, COLS, 2), Propagation()), whole, atol=1e-6)


@pytest.mark.parametrize(("context", "label"), [(2, [0, 1]), (3, [1, 0]), (7, [1, 0])])
def test_a_frame_looks_back_as_far_as_the_context_and_no_further(context: int, label: list[int]) -> None:
    # The second frame gives the look of `turned` the first label. The fifth is most like it; of the others, like `b`.
    a, b, new = torch.eye(3)
    turned, last = 0.6 * a + 0.8 * new, 0.6 * b + 0.8 * new
    video = [torch.stack([first, b]) for first in (a, turned, a, a, last)]
    how = Propagation(context=context, top_k=1, window=0)
    found = list(carried(video, torch.eye(2), (1, 2), how))
    assert found[0][0].tolist() == [1, 0]
    assert found[3][0].tolist() == label


def gone_and_back() -> Iterator[Tensor]:
    """A place that looks like the first frame, then like nothing, then like the second frame."""
    yield torch.eye(3)[:2]
    yield torch.eye(3)[[2, 0]]
    yield torch.eye(3)[[2, 1]]


def test_frames_beyond_the_context_are_forgotten_and_the_first_never() -> None:
    first = torch.eye(2)
    with_past = list(carried(gone_and_back(), first, (1, 2), Propagation(context=1, top_k=1, window=0)))
    without = list(carried(gone_and_back(), first, (1, 2), Propagation(context=0, top_k=1, window=0)))
    # Feature 2 appears in the second frame, with the mixture of what was not alike; only a past frame knows it.
    assert torch.allclose(with_past[1][0], with_past[0][0], atol=1e-4)
    assert torch.allclose(without[1][1], first[1], atol=1e-4)  # feature 1 is the first frame's second place


def test_hard_labels_pass_on_the_largest_share_alone() -> None:
    assert hardened(torch.tensor([[0.4, 0.6], [0.7, 0.3]])).tolist() == [[0, 1], [1, 0]]
    draw = torch.manual_seed(1)
    video = [torch.randn(PLACES, 4, generator=draw) for _ in range(3)]
    soft, hard = (
        list(carried(video, some_labels(), (ROWS, COLS), Propagation(queue=queue))) for queue in ("soft", "hard")
    )
    assert torch.equal(soft[0], hard[0])
    assert not torch.allclose(soft[1], hard[1])


def test_nearest_takes_the_pixel_under_the_middle() -> None:
    mask = np.arange(6, dtype=np.uint8)[None].repeat(2, 0)
    assert nearest(mask, 1, 2).tolist() == [[1, 4]]
    assert nearest(mask, 2, 6).tolist() == mask.tolist()
    assert nearest(nearest(mask, 4, 12), 2, 6).tolist() == mask.tolist()


def test_first_labels_are_background_and_the_objects_in_order() -> None:
    mask = np.zeros((8, 12), np.uint8)
    mask[:4, :4], mask[4:, 8:], mask[4:, :4] = 5, 2, 9  # 9 does not count
    labels = first_labels(mask, (2, 5), (2, 3))
    assert labels.reshape(2, 3, 3).argmax(-1).tolist() == [[2, 0, 0], [0, 0, 1]]
    assert (labels.sum(1) == 1).all()


def test_true_shares_are_those_of_each_places_pixels() -> None:
    mask = np.zeros((4, 8), np.uint8)
    mask[:, 2:5] = 5
    assert true_shares(mask, (5,), (1, 2)).tolist() == [[0.5, 0.5], [0.75, 0.25]]


def test_a_mask_of_whole_patches_comes_back() -> None:
    mask = np.zeros((64, 96), np.uint8)
    mask[16:48, 32:80], mask[:16, :16] = 3, 7
    labels = first_labels(mask, (3, 7), (4, 6))
    found = mask_of(labels, (3, 7), (4, 6), 16, (64, 96))
    assert (found == mask).mean() > 0.9  # corners are cut by the bilinear resize
    assert set(np.unique(found)) == {0, 3, 7}
    assert mask_of(labels, (3, 7), (4, 6), 16, (128, 192)).shape == (128, 192)


def test_labels_are_stretched_each_for_itself() -> None:
    # An object whose share is 0.3 at most still wins where it is at its largest.
    share = torch.zeros(6)
    share[2:4] = 0.3
    found = mask_of(torch.stack([1 - share, share], 1), (1,), (1, 6), 16, (16, 96))
    assert found[8].reshape(6, 16).mean(1).round().tolist() == [0, 0, 1, 1, 0, 0]


def test_an_object_that_is_gone_leaves_background() -> None:
    labels = torch.tensor([[1.0, 0.0]]).repeat(6, 1)
    assert not mask_of(labels, (1,), (2, 3), 16, (32, 48)).any()


def test_an_object_that_fills_the_frame_is_all_of_it() -> None:
    mask = np.full((32, 48), 2, np.uint8)
    assert (mask_of(true_shares(mask, (1, 2), (2, 3)), (1, 2), (2, 3), 16, (32, 48)) == 2).all()

"""The parts of RAFT's refinement against torchvision's modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models import optical_flow

from system.motion.raft_refine import Correlation, Update, levels_of


@pytest.fixture(scope="module")
def network() -> optical_flow.RAFT:
    torch.manual_seed(0)
    return optical_flow.raft_small(weights=None).eval()


def features(height: int, width: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    first, second = torch.randn(2, 3, 128, height, width)
    return first, second


def grid(height: int, width: int) -> Tensor:
    ys, xs = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([xs, ys]).expand(3, -1, -1, -1)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 22), (28, 28)])
@pytest.mark.parametrize("reach", [0.0, 3.0, 60.0], ids=["on the grid", "near", "out of the frame"])
@torch.inference_mode()
def test_what_surrounds_a_place_is_what_torchvision_looks_up(
    network: optical_flow.RAFT, height: int, width: int, reach: float
) -> None:
    first, second = features(height, width)
    where = grid(height, width) + reach * torch.randn(3, 2, height, width)
    network.corr_block.build_pyramid(first, second)
    wanted = network.corr_block.index_pyramid(where)
    assert torch.allclose(Correlation(first, second).near(where), wanted, atol=1e-4)


@torch.inference_mode()
def test_a_point_as_far_as_no_whole_number_sees_nothing() -> None:
    first, second = features(16, 16)
    where = torch.full((3, 2, 16, 16), 1e30)
    assert not Correlation(first, second).near(where).any()
    assert not Correlation(first, second).near(-where).any()


def test_a_row_of_the_correlation_holds_every_level_and_its_ring() -> None:
    levels = levels_of(28, 28)
    assert [(level.height, level.width) for level in levels] == [(28, 28), (14, 14), (7, 7), (3, 3)]
    assert levels[-1].stop == 30**2 + 16**2 + 9**2 + 5**2


@torch.inference_mode()
def test_two_updates_are_torchvisions(network: optical_flow.RAFT) -> None:
    torch.manual_seed(2)
    context, near, flow = torch.randn(2, 160, 16, 16), torch.randn(2, 196, 16, 16), torch.randn(2, 2, 16, 16)
    update, block = Update(network.update_block), network.update_block
    hidden, rest = context[:, :96].tanh(), context[:, 96:].relu()
    state = update.start(context)
    for _ in range(2):
        state, step = update(state, near, flow)
        hidden, wanted = block(hidden, rest, near, flow)
        assert torch.allclose(state.hidden, hidden, atol=1e-5)
        assert torch.allclose(step, wanted, atol=1e-5)

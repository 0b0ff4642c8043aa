from __future__ import annotations

import numpy as np
import pytest
import torch

from system.core import warp
from system.core.clip import token_grid
from system.core.pairs import FramePair, pairs_toward

GRID = token_grid(16, 224, 2, 16)


def constant_flow(x: float, y: float, size: int = 64, clips: int = 1) -> torch.Tensor:
    return torch.tensor([x, y]).expand(clips, size, size, 2).clone()


def test_pairs_point_toward_the_base_frame() -> None:
    pairs = pairs_toward(2, 5)
    assert pairs == (FramePair(0, 1), FramePair(1, 2), FramePair(3, 2), FramePair(4, 3))


def looked_up(source: torch.Tensor, flow: torch.Tensor, *, half_size_scale: bool = False) -> torch.Tensor:
    return warp.Sampler(flow, half_size_scale=half_size_scale)(source[:, None], flow)[:, 0]


def test_backward_warping_looks_up_where_a_pixel_came_from() -> None:
    source = torch.rand(1, 64, 64)
    warped = looked_up(source, constant_flow(5, -3))
    assert torch.allclose(warped[0, 3:, :-5], source[0, :-3, 5:], atol=1e-4)
    assert not warped[0, :2].any()
    assert not warped[0, :, -4:].any()


def test_no_motion_leaves_a_map_as_it_is() -> None:
    source = torch.rand(2, 64, 64)
    assert torch.allclose(looked_up(source, constant_flow(0, 0, clips=2)), source, atol=1e-5)


def test_the_release_scales_flow_by_half_the_width() -> None:
    ramp = torch.arange(224.0).expand(1, 224, 224)
    exact = looked_up(ramp, constant_flow(32, 0, 224))
    released = looked_up(ramp, constant_flow(32, 0, 224), half_size_scale=True)
    assert float(exact[0, 100, 50]) == pytest.approx(82, abs=1e-2)
    assert float(released[0, 100, 50]) == pytest.approx(50 + 31.857, abs=1e-2)


def test_a_gaussian_map_peaks_on_the_drawn_places_and_is_nowhere_zero() -> None:
    places = torch.zeros(1, 196, dtype=torch.bool)
    places[0, 0] = True  # one corner: the far corner is 18 patches away
    bumps = warp.gaussian_map(places, GRID)
    assert bumps.shape == (1, 224, 224)
    assert float(bumps.max()) == 1
    assert divmod(int(bumps.argmax()), 224) == (7, 7)  # 7.5 lies between two pixels; the first one counts
    row = (torch.arange(224) - 7.5) / 16
    wanted = torch.exp(-(row[None] ** 2) - row[:, None] ** 2)
    assert torch.allclose(bumps[0], wanted / wanted.max(), atol=1e-6)


def test_a_gaussian_map_is_the_largest_bump_at_every_pixel() -> None:
    places = torch.zeros(1, 196, dtype=torch.bool)
    places[0, [0, 30, 195]] = True
    pixel = torch.arange(224.0)
    bumps = []
    for index in (0, 30, 195):
        row, col = 16 * (index // 14) + 7.5, 16 * (index % 14) + 7.5
        bumps.append(torch.exp(-(((pixel[None] - col) / 16) ** 2) - ((pixel[:, None] - row) / 16) ** 2))
    wanted = torch.stack(bumps).amax(0)
    assert torch.allclose(warp.gaussian_map(places, GRID)[0], wanted / wanted.max(), atol=1e-6)


def test_a_place_map_is_one_on_drawn_patches_and_almost_zero_elsewhere() -> None:
    places = torch.zeros(1, 196, dtype=torch.bool)
    places[0, 15] = True  # row 1, col 1
    drawn = warp.place_map(places, GRID)[0]
    assert (drawn[16:32, 16:32] == 1).all()
    assert float(drawn.sum()) == pytest.approx(256, rel=1e-4)
    assert (drawn > 0).all()


def test_holes_take_the_base_frames_value_at_the_same_place() -> None:
    grid = token_grid(4, 64, 2, 16)
    initial = torch.rand(1, 64, 64)
    flow = constant_flow(8, 0)[:, None].expand(1, 3, 64, 64, 2)
    filled = warp.carry(initial, flow, 0)
    empty = warp.carry(initial, flow, 0, fill_holes=False)
    for time in (1, 2, 3):
        assert torch.equal(filled[0, time, :, -8 * time :], initial[0, :, -8 * time :])
        assert (empty[0, time, :, -8 * time + 1 :] == 0).all()
    assert warp.cube_scores(filled, grid).shape == (1, 2, 16)


def test_the_release_fills_holes_at_every_step_and_so_carries_them_on() -> None:
    initial = torch.rand(1, 64, 64) + 0.1
    flow = constant_flow(8, 0)[:, None].expand(1, 3, 64, 64, 2)
    released, ours = warp.carry_as_released(initial, flow, 0), warp.carry(initial, flow, 0)
    assert torch.equal(released[0, 1, :, -6:], initial[0, :, -6:])
    assert torch.equal(ours[0, 2, :, -14:-8], initial[0, :, -14:-8])
    assert not torch.equal(released[0, 2, :, -14:-8], initial[0, :, -14:-8])


def test_cube_scores_add_up_a_map_over_each_tubelet() -> None:
    grid = token_grid(4, 64, 2, 16)
    maps = torch.rand(2, 4, 64, 64)
    scores = warp.cube_scores(maps, grid)
    assert float(scores[1, 1, 6]) == pytest.approx(float(maps[1, 2:4, 16:32, 32:48].sum()), rel=1e-5)


def test_drawn_places_are_those_of_a_tube_with_the_same_draws() -> None:
    from system.core.masks import tube_visible

    noise = np.random.default_rng(0).random((2, 8, 196), np.float32)
    assert (warp.drawn_places(noise, 20) == tube_visible(noise, GRID, 0.9)[:, :196]).all()


def plainly_carried(initial: torch.Tensor, flow: torch.Tensor, base: int) -> torch.Tensor:
    """What `carry` says in its words, map by map and step by step."""
    height, width = initial.shape[1:]
    ys, xs = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    size = torch.tensor([width - 1.0, height - 1.0])

    def looked_up(source: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        where = torch.stack([xs, ys], -1) / size * 2 - 1 + moved / size * 2
        return torch.nn.functional.grid_sample(source[:, None], where, align_corners=True)[:, 0]

    maps, inside = {base: initial}, {base: torch.ones_like(initial)}
    for frame in range(base + 1, flow.shape[1] + 1):
        maps[frame] = looked_up(maps[frame - 1], flow[:, frame - 1])
        inside[frame] = looked_up(inside[frame - 1], flow[:, frame - 1])
    for frame in range(base - 1, -1, -1):
        maps[frame] = looked_up(maps[frame + 1], flow[:, frame])
        inside[frame] = looked_up(inside[frame + 1], flow[:, frame])
    order = range(flow.shape[1] + 1)
    found = torch.stack([maps[frame] for frame in order], 1)
    return torch.where(torch.stack([inside[frame] for frame in order], 1) < 0.5, initial[:, None], found)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80), (33, 31)])
def test_maps_are_carried_to_the_bit_as_if_one_after_the_other(height: int, width: int) -> None:
    torch.manual_seed(0)
    initial, flow = torch.rand(2, height, width), 9 * torch.randn(2, 5, height, width, 2)
    assert torch.equal(warp.carry(initial, flow, 3), plainly_carried(initial, flow, 3))


def test_a_gaussian_map_is_to_the_bit_the_largest_of_all_rows_at_once() -> None:
    places = torch.rand(3, 196, generator=torch.Generator().manual_seed(0)) < 0.1
    centre, pixel = 16 * torch.arange(14) + 7.5, torch.arange(224)
    profile = torch.exp(-(((pixel[None] - centre[:, None]) / 16) ** 2))
    along = (places.reshape(3, 14, 14)[..., None] * profile).amax(2)
    bumps = (profile[None, :, :, None] * along[:, :, None, :]).amax(1)
    assert torch.equal(warp.gaussian_map(places, GRID), bumps / bumps.amax((1, 2), keepdim=True))

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_large, raft_small

from system.config import MotionSection
from system.core.pairs import FramePair
from system.errors import WeightsError
from system.motion.base import motion_source


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RAFT-small with random weights, in the form of torchvision's file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "raft_small.pth"
    torch.save(raft_small(weights=None).state_dict(), path)
    return path


def section(weights: Path | str, updates: int = 2) -> MotionSection:
    return MotionSection(source="raft", weights=str(weights), updates=updates)


def test_flow_is_torchvisions_for_every_pair(weights: Path) -> None:
    network = raft_small(weights=None)
    network.load_state_dict(torch.load(weights, weights_only=True))
    frames = np.random.default_rng(0).integers(0, 256, (1, 3, 128, 128, 3), np.uint8)
    flow = motion_source(section(weights))(frames, [FramePair(0, 1), FramePair(2, 1)])
    pixels = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 255 * 2 - 1
    with torch.inference_mode():
        wanted = network.eval()(pixels[:, 2], pixels[:, 1], num_flow_updates=2)[-1]
    assert flow.shape == (1, 2, 128, 128, 2)
    assert torch.allclose(flow[:, 1].permute(0, 3, 1, 2), wanted, atol=1e-4)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"motion.weights=.*none.pth: there is no such file"):
        motion_source(section(tmp_path / "none.pth"))


def test_weights_of_another_network_are_refused_with_the_first_key(tmp_path: Path) -> None:
    torch.save(raft_large(weights=None).state_dict(), tmp_path / "large.pth")
    with pytest.raises(WeightsError, match=r"is not torchvision's raft_small: \d+ keys differ, the first is"):
        motion_source(section(tmp_path / "large.pth"))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"path": Path("/")}, tmp_path / "pickle.pth")
    with pytest.raises(WeightsError, match="loads without running code"):
        motion_source(section(tmp_path / "pickle.pth"))

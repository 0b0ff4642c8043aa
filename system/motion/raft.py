"""RAFT-small (Teed and Deng, ECCV 2020, arXiv:2003.12039), the flow of MGMAE's paper, in its plain form.

The network is torchvision's, which equals the original RAFT-small in parameters and results. Weights come from a URI;
MGMAE used the original's, which is torchvision's C_T_V1. Frames are given in [-1, 1]: another range gives flow that
looks plausible and is wrong.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchvision.models.optical_flow import raft_small

from system import storage
from system.config import MotionSection
from system.core.pairs import FramePair
from system.errors import WeightsError

if TYPE_CHECKING:
    from system.motion.base import Frames


class RAFT:
    """RAFT-small with a fixed number of updates.

    Args:
        network: torchvision's raft_small, in eval mode on its device.
        updates: flow updates; MGMAE uses 6.
    """

    def __init__(self, network: nn.Module, updates: int) -> None:
        self._network = network
        self._updates = updates
        self._device = next(network.parameters()).device

    @torch.inference_mode()
    def __call__(self, frames: Frames, pairs: Sequence[FramePair]) -> Tensor:
        """Return the flow of every pair: (B, T, H, W, 3) uint8 RGB -> (B, R, H, W, 2) float32 px, on the device."""
        pixels = torch.from_numpy(frames).to(self._device).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
        flows = [
            self._network(pixels[:, pair.start], pixels[:, pair.end], num_flow_updates=self._updates)[-1]
            for pair in pairs
        ]  # each (B, 2, H, W)
        return torch.stack(flows, 1).permute(0, 1, 3, 4, 2)


def load_raft(motion: MotionSection, device: str) -> RAFT:
    """Load RAFT-small from the URI in `motion.weights`.

    Raises:
        WeightsError: if the file is missing, is not a plain file of tensors, or belongs to another network.
    """
    assert motion.weights is not None, "checked with the recipe"
    try:
        data = storage.read(motion.weights)
    except storage.MissingError as error:
        raise WeightsError(f"motion.weights={motion.weights}: there is no such file") from error
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"motion.weights={motion.weights} is not a file of tensors that loads without running code: {error}"
        ) from error
    network = raft_small(weights=None)
    own = network.state_dict()
    wrong = sorted(set(own) ^ set(state)) or [key for key in own if own[key].shape != state[key].shape]
    if wrong:
        raise WeightsError(
            f"motion.weights={motion.weights} is not torchvision's raft_small: {len(wrong)} keys differ, the first is"
            f" {wrong[0]}"
        )
    network.load_state_dict(state)
    return RAFT(network.eval().to(device), motion.updates)

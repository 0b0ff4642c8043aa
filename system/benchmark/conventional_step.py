"""A pre-training step the ordinary way: Hugging Face's VideoMAE with PyTorch's AdamW, both as they come."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from system.core.clip import TokenGrid
from system.core.targets import IMAGENET_MEAN, IMAGENET_STD
from system.models.sizes import Shape


def installed() -> bool:
    """Say whether transformers is."""
    return importlib.util.find_spec("transformers") is not None


def conventional_model(grid: TokenGrid, encoder: Shape, decoder: Shape) -> nn.Module:
    """Return `VideoMAEForPreTraining` of our size, its weights drawn at random."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining  # noqa: PLC0415  an extra

    config = VideoMAEConfig(
        image_size=grid.height,
        patch_size=grid.patch_px,
        num_frames=grid.num_frames,
        tubelet_size=grid.tubelet_frames,
        hidden_size=encoder.width,
        num_hidden_layers=encoder.depth,
        num_attention_heads=encoder.heads,
        intermediate_size=4 * encoder.width,
        decoder_hidden_size=decoder.width,
        decoder_num_hidden_layers=decoder.depth,
        decoder_num_attention_heads=decoder.heads,
        decoder_intermediate_size=4 * decoder.width,
        use_mean_pooling=False,
        norm_pix_loss=True,
        layer_norm_eps=1e-6,
    )
    model: nn.Module = VideoMAEForPreTraining(config)
    return model.train()


class ConventionalStep:
    """One step: forward, backward, AdamW; the batch is ready on the device, normalised.

    Args:
        model: of `conventional_model`, on its device.
        frames: (B, 3, T, H, W) float32 in [0, 1], on the device.
        visible: (B, N).
        bf16: whether it runs under bf16 autocast.
    """

    def __init__(self, model: nn.Module, frames: Tensor, visible: NDArray[np.bool_], *, bf16: bool) -> None:
        device = frames.device
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self._pixels = ((frames - mean) / std).transpose(1, 2).contiguous()
        self._masked = torch.from_numpy(~visible).to(device)
        self._model, self._bf16 = model, bf16
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)

    def loss(self) -> Tensor:
        """Return the loss of the batch."""
        with torch.autocast(self._pixels.device.type, torch.bfloat16, enabled=self._bf16):
            loss: Tensor = self._model(self._pixels, bool_masked_pos=self._masked).loss
        return loss

    def __call__(self) -> int:
        """Take a step and return its clips."""
        self.loss().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad()
        return len(self._pixels)

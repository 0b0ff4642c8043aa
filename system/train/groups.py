"""Which parameters are decayed."""

from __future__ import annotations

from typing import Any

from torch import nn

# Parameters that are not decayed whatever their shape, by name.
NOT_DECAYED = ("*mask_token", "*positions")


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups: biases, 1-D parameters, mask tokens and positions without decay, the rest with it.

    As VideoMAE does, whose positions are not trained; those of MAE and BEiT are not decayed either.
    """
    from timm.optim._param_groups import param_groups_weight_decay  # noqa: PLC0415  seconds, with torchvision

    groups: list[dict[str, Any]] = param_groups_weight_decay(module, weight_decay, no_weight_decay_list=NOT_DECAYED)
    return [group for group in groups if group["params"]]

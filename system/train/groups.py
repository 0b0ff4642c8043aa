"""Which parameters are decayed, and how fast each of them learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

# Parameters that are not decayed whatever their shape, by name.
NOT_DECAYED = ("*mask_token", "*positions")

# Parameter's name -> factor of its learning rate.
LrScale = Callable[[str], float]


def same_for_each(_name: str) -> float:
    """Say that every parameter has the same learning rate."""
    return 1.0


def parameter_groups(module: nn.Module, weight_decay: float, lr_scale: LrScale = same_for_each) -> list[dict[str, Any]]:
    """Return the optimizer's groups: of each `lr_scale` one without weight decay and one with it, if not empty.

    Biases, 1-D parameters, mask tokens and positions are not decayed, as VideoMAE does, whose positions are not
    trained; those of MAE and BEiT are not decayed either.
    """
    from timm.optim._param_groups import param_groups_weight_decay  # noqa: PLC0415  seconds, with torchvision

    names = {id(param): name for name, param in module.named_parameters()}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for half in param_groups_weight_decay(module, weight_decay, no_weight_decay_list=NOT_DECAYED):
        for param in half["params"]:
            key = (half["weight_decay"], lr_scale(names[id(param)]))
            group = groups.setdefault(key, {"params": [], "weight_decay": key[0], "lr_scale": key[1]})
            group["params"].append(param)
    return list(groups.values())


def set_lr(groups: list[dict[str, Any]], lr: float) -> None:
    """Give each group its learning rate."""
    for group in groups:
        group["lr"] = lr * group["lr_scale"]

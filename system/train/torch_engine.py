"""The plain engine: PyTorch alone, gradients summed over ranks by one all-reduce a step.

The reference that DeepSpeed's engine is compared with, and the one to use where DeepSpeed is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import AdamW

from system.config import EngineSection, TrainSection
from system.train.fragments import MOMENTS, WEIGHTS, Fragment, StateSource, fill_weights, owned, start_adam_state
from system.train.groups import LrScale, parameter_groups, same_for_each, set_lr


def rank_and_size() -> tuple[int, int]:
    """Return this process's rank and the number of ranks; (0, 1) without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


class TorchEngine:
    """One replica per rank.

    Args:
        module: on its device.
        train: the train section of the recipe.
        engine: the engine section.
        source: a checkpoint to start from, if any.
        lr_scale: factor of each parameter's learning rate, by its name.
    """

    def __init__(
        self,
        module: nn.Module,
        train: TrainSection,
        engine: EngineSection,
        source: StateSource | None = None,
        lr_scale: LrScale = same_for_each,
    ) -> None:
        if source is not None:
            fill_weights(module, source)
        self.module = module
        self._clip = train.clip_grad
        self._autocast = engine.precision == "bf16"
        self._device = next(module.parameters()).device
        self._parameters = [param for param in module.parameters() if param.requires_grad]
        groups = parameter_groups(module, train.weight_decay, lr_scale)
        self._optimizer = AdamW(groups, lr=0.0, betas=train.betas, eps=train.eps, fused=True)
        self._rank, self._size = rank_and_size()
        # From the first step on, so that a checkpoint before the first update is one like any other.
        start_adam_state(self._optimizer, source.optimizer_step if source is not None else 0)
        if source is not None:
            source.fill([fragment for fragment in self._all_states() if fragment.state != WEIGHTS])

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Run the module, under autocast if the recipe says so."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            out: dict[str, Tensor] = self.module(*inputs)
        return out

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add a micro-batch's gradient; after the last one of a step, sum over ranks."""
        loss.backward()  # type: ignore[no-untyped-call]
        if last and self._size > 1:
            self._reduce()

    def _reduce(self) -> None:
        gradients = [param.grad for param in self._parameters if param.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def step(self, lr: float) -> float:
        """Take one optimizer step and return the gradient's norm before clipping; no step if that is not finite."""
        gradients = [param.grad for param in self._parameters if param.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            self._optimizer.zero_grad(set_to_none=True)
            return float(norm)
        if self._clip is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self._clip, norm)
        set_lr(self._optimizer.param_groups, lr)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def _all_states(self) -> Iterator[Fragment]:
        for name, param in self.module.named_parameters():
            state = self._optimizer.state.get(param, {})
            moments = {key: state[key].view(-1) for key in MOMENTS if key in state}
            yield from owned(name, 0, {WEIGHTS: param.detach().view(-1), **moments})

    def fragments(self) -> list[Fragment]:
        """Return what this rank writes into a checkpoint: every n-th parameter, whole."""
        names = {name: number for number, (name, _) in enumerate(self.module.named_parameters())}
        return [part for part in self._all_states() if names[part.name] % self._size == self._rank]

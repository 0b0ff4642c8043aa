"""The optimizer step: DeepSpeed's ZeRO behind the same few calls as the plain engine.

The only file that imports deepspeed. A loss handed to `backward` is this rank's part of the step's mean, so gradients
are summed over micro-batches and ranks, whatever the engine does inside.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from system.config import EngineSection, TrainSection
from system.train.fragments import (
    MOMENTS,
    WEIGHTS,
    Fragment,
    StateSource,
    adam_state,
    fill_weights,
    owned,
)
from system.train.groups import LrScale, parameter_groups, same_for_each, set_lr
from system.train.torch_engine import TorchEngine, rank_and_size


class Engine(Protocol):
    """What the loop asks of an engine."""

    module: nn.Module

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Run the module."""
        ...

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add a micro-batch's gradient; `last` is True for the last one of a step."""
        ...

    def step(self, lr: float) -> float:
        """Take one optimizer step; return the gradient's norm before clipping. Nothing changes if it is not finite."""
        ...

    def fragments(self) -> list[Fragment]:
        """Return what this rank writes into a checkpoint."""
        ...


@dataclass(frozen=True, slots=True)
class BatchShape:
    """How a step reaches one rank: `micro_batches` forwards of at most `clips` clips."""

    clips: int
    micro_batches: int


def make_engine(
    module: nn.Module,
    train: TrainSection,
    engine: EngineSection,
    shape: BatchShape,
    source: StateSource | None = None,
    lr_scale: LrScale = same_for_each,
) -> Engine:
    """Make the engine that a recipe names, from a checkpoint if there is one.

    Args:
        module: on its device, in float32.
        train: the train section of the recipe.
        engine: the engine section.
        shape: how a step reaches one rank.
        source: the checkpoint to start from; its weights replace the module's before anything is sharded.
        lr_scale: factor of each parameter's learning rate, by its name.
    """
    if engine.compile:
        module.compile()  # in place: parameters keep their names
    if engine.name == "torch":
        return TorchEngine(module, train, engine, source, lr_scale)
    return DeepSpeedEngine(module, train, engine, shape, source, lr_scale)


def deepspeed_config(train: TrainSection, engine: EngineSection, shape: BatchShape, num_ranks: int) -> dict[str, Any]:
    """Generate DeepSpeed's configuration from the recipe: there is no JSON beside it that could disagree."""
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": shape.clips,
        "gradient_accumulation_steps": shape.micro_batches,
        "train_batch_size": shape.clips * shape.micro_batches * num_ranks,
        # Without ZeRO we clip: a step without a finite gradient is left out, which DeepSpeed does under ZeRO alone.
        "gradient_clipping": (train.clip_grad or 0.0) if engine.zero_stage else 0.0,
        "zero_optimization": {"stage": engine.zero_stage},
        "zero_allow_untested_optimizer": False,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    if engine.precision == "bf16":
        # Parameters, accumulation and the optimizer stay in float32. The empty list keeps the reduction of Linear and
        # Conv gradients in float32 too; DeepSpeed's default reduces them in bf16.
        keep: dict[str, Any] = {} if engine.reduce_dtype == "bf16" else {"lower_precision_safe_modules": []}
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", **keep}
    return config


def _import_deepspeed() -> Any:
    """Import DeepSpeed quietly, and without the C++ code that it would compile for a CPU's collectives."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import deepspeed  # noqa: PLC0415  seconds of imports, and only this engine needs it

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Needs a compiler on every node, and gloo gives the same sums.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


class DeepSpeedEngine:
    """DeepSpeed ZeRO 0 to 3 with PyTorch's fused AdamW."""

    def __init__(
        self,
        module: nn.Module,
        train: TrainSection,
        engine: EngineSection,
        shape: BatchShape,
        source: StateSource | None = None,
        lr_scale: LrScale = same_for_each,
    ) -> None:
        deepspeed = _import_deepspeed()
        if source is not None:
            fill_weights(module, source)
        self._stage, self._clip = engine.zero_stage, train.clip_grad
        self._rank, self._size = rank_and_size()
        # A client optimizer: DeepSpeed's own compiles CUDA or C++ code at its first use.
        groups = parameter_groups(module, train.weight_decay, lr_scale)
        optimizer = AdamW(groups, lr=0.0, betas=train.betas, eps=train.eps, fused=True)
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            config=deepspeed_config(train, engine, shape, self._size),
            dist_init_required=False,
        )
        self.module: nn.Module = self._engine.module
        # From the first step on, so that a checkpoint before the first update is one like any other.
        self._start_states(source.optimizer_step if source is not None else 0)
        if source is not None:
            source.fill([part for _, part in self._states() if part.state != WEIGHTS])

    @property
    def _adam(self) -> AdamW:
        inner = self._optimizer.optimizer if self._stage else self._optimizer
        assert isinstance(inner, AdamW)
        return inner

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Run the module, under autocast if the recipe says so."""
        out: dict[str, Tensor] = self._engine(*inputs)
        return out

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add a micro-batch's gradient; DeepSpeed reduces when the last one of a step is in."""
        # DeepSpeed averages over ranks; our losses are parts of one mean already.
        self._engine.backward(loss * self._size, scale_wrt_gas=False)
        assert self._engine.is_gradient_accumulation_boundary() == last
        if not last:
            self._engine.step()  # counts the micro-batch, and nothing else

    def step(self, lr: float) -> float:
        """Take one optimizer step and return the gradient's norm before clipping."""
        norm = None
        if not self._stage:
            norm = self._clipped()
        set_lr(self._optimizer.param_groups, lr)
        self._engine.step()
        return float(self._engine.get_global_grad_norm()) if norm is None else norm

    def _clipped(self) -> float:
        """Clip the gradients and return their norm before that; drop them if it is not finite."""
        parameters = [param for param in self.module.parameters() if param.grad is not None]
        norm = nn.utils.get_total_norm([param.grad for param in parameters if param.grad is not None])
        if not torch.isfinite(norm):
            self._engine.optimizer.zero_grad(set_to_none=True)
        elif self._clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, self._clip, norm)
        return float(norm)

    def _flat_parameters(self) -> list[Tensor]:
        """Return the tensors that the inner optimizer has states for."""
        if self._stage == 3:
            return list(self._optimizer.fp32_partitioned_groups_flat)
        if self._stage:
            return list(self._optimizer.single_partition_of_fp32_groups)
        return [param for group in self._adam.param_groups for param in group["params"]]

    def _start_states(self, step: int) -> None:
        """Create the moments that the inner optimizer would create at its first step."""
        for flat in self._flat_parameters():
            self._adam.state[flat] = adam_state(flat, step)

    def _states(self) -> Iterator[tuple[int, Fragment]]:
        """Yield the pieces that live on this rank, with their parameter's number, without any communication."""
        for number, (name, param) in enumerate(self.module.named_parameters()):
            piece = self._piece(param)
            if piece is None:
                continue
            start, flat, first, count = piece
            state = self._adam.state.get(flat, {})
            moments = {key: state[key].view(-1).narrow(0, first, count) for key in MOMENTS if key in state}
            weights = flat.detach().view(-1).narrow(0, first, count)
            for fragment in owned(name, start, {WEIGHTS: weights, **moments}):
                yield number, fragment

    def _piece(self, param: Any) -> tuple[int, Tensor, int, int] | None:
        """Return (start in the parameter, flat tensor, first value in it, number of values), None if none is here."""
        if self._stage == 3:
            optimizer = self._optimizer
            group, first, padded = optimizer.grad_position[optimizer.get_param_id(param)]
            start = self._rank * padded
            count = min(padded, param.ds_numel - start)
            return (start, optimizer.fp32_partitioned_groups_flat[group], first, count) if count > 0 else None
        if self._stage:
            mapping = param._hp_mapping
            if mapping is None:
                return None
            # Read from the inner optimizer: DeepSpeed 0.19.8 links only the first parameter group's states.
            flat = self._optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
            address = mapping.hp_fragment_address
            return mapping.lp_fragment_address.start, flat, address.start, address.numel
        return 0, param, 0, param.numel()

    def fragments(self) -> list[Fragment]:
        """Return what this rank writes into a checkpoint; ranks share what stage 0 replicates."""
        return [part for number, part in self._states() if self._stage or number % self._size == self._rank]

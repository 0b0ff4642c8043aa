"""What an engine owns of the training state, and how it asks for what it needs: the engine's side of a checkpoint.

A parameter's state is three flat float32 arrays of its size: the weights and Adam's two moments. Each rank owns some
pieces [start, stop) of them, whatever shards them; together the ranks own everything once. So a checkpoint of any
number of ranks can be read by any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.optim import AdamW

WEIGHTS = "param"
MOMENTS = ("exp_avg", "exp_avg_sq")
STATES = (WEIGHTS, *MOMENTS)


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of one state of one parameter.

    Attributes:
        name: of the parameter.
        state: one of `STATES`.
        start: first value, in the flattened parameter.
        values: the values, flat, float32; the engine's own memory, not a copy.
    """

    name: str
    state: str
    start: int
    values: Tensor

    @property
    def stop(self) -> int:
        """End of the piece, in the flattened parameter."""
        return self.start + self.values.numel()


class StateSource(Protocol):
    """Where a resumed engine gets its state from: a checkpoint of any number of ranks."""

    @property
    def optimizer_step(self) -> int:
        """Optimizer steps taken so far."""
        ...

    def fill(self, fragments: Sequence[Fragment]) -> None:
        """Overwrite the values of fragments with the stored ones."""
        ...


def fill_weights(module: nn.Module, source: StateSource) -> None:
    """Overwrite all weights of a module, before an engine shards them."""
    source.fill([Fragment(name, WEIGHTS, 0, param.detach().view(-1)) for name, param in module.named_parameters()])


def owned(name: str, start: int, states: dict[str, Tensor]) -> list[Fragment]:
    """Make the fragments of one piece of a parameter from its states."""
    return [Fragment(name, state, start, values) for state, values in states.items()]


def start_adam_state(optimizer: AdamW, step: int) -> None:
    """Give an AdamW that has not stepped yet the state that it would have after `step` steps, with empty moments.

    What PyTorch's AdamW makes for itself at its first step, made before it, so that moments can be filled in.
    """
    for group in optimizer.param_groups:
        for param in group["params"]:
            optimizer.state[param] = adam_state(param, step)


def adam_state(param: Tensor, step: int) -> dict[str, Tensor]:
    """Return AdamW's state of one tensor: the step as float32, on the tensor's device as the fused kernel wants it."""
    values = {state: param.detach().new_zeros(param.shape) for state in MOMENTS}
    return {"step": param.detach().new_full((), float(step)), **values}

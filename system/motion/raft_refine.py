"""How RAFT-small refines its flow, with torchvision's weights and its numbers, in an order of work that costs less.

- The correlation of a place with all four levels is one row of one matrix product. Pooling commutes with the product,
  so the second frame's features are pooled instead; zeros around each level are what lies outside of the frame.
- The 4 x 7 x 7 values around a place come from one look-up of 4 x 8 x 8 of them, and two blends: all of a level share
  their fractions.
- What of the gates depends on the context alone is computed once, not at every update, and two gates at once.

P pairs, maps of h x w places, L levels, C channels of the features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Of RAFT-small: how far around a place each level is looked at, and the levels.
RADIUS = 3
LEVELS = 4
# Values of a level along one axis that a place's window is blended from.
WINDOW = 2 * RADIUS + 2


def innermost(maps: Tensor) -> Tensor:
    """Return (.., channels, h, w) with the channels innermost in memory: convolutions are fastest so."""
    return maps.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the pyramid in a row of the correlation: `height` x `width` values with a ring of zeros.

    Attributes:
        start: of its values in the row.
        height: without the ring.
        width: without the ring.
    """

    start: int
    height: int
    width: int

    @property
    def stop(self) -> int:
        """Return where the next level begins."""
        return self.start + (self.height + 2) * (self.width + 2)


def levels_of(height: int, width: int) -> tuple[Level, ...]:
    """Return the levels of maps of a size."""
    levels = [Level(0, height, width)]
    for _ in range(LEVELS - 1):
        last = levels[-1]
        levels.append(Level(last.stop, last.height // 2, last.width // 2))
    return tuple(levels)


class Correlation:
    """How alike each place of one map and all places of another are, at four levels.

    Args:
        first: (P, C, h, w) float32.
        second: the same.
    """

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self._levels = levels_of(*second.shape[2:])
        pooled, rows = second, []
        for number in range(LEVELS):
            pooled = F.avg_pool2d(pooled, 2) if number else pooled
            rows.append(F.pad(pooled, (1, 1, 1, 1)).flatten(2))
        own = first.flatten(2).transpose(1, 2) / first.shape[1] ** 0.5
        self._rows = own @ torch.cat(rows, 2)  # (P, h * w, values of all levels)
        self._offsets = torch.arange(-RADIUS, WINDOW - RADIUS, device=first.device)

    def near(self, where: Tensor) -> Tensor:
        """Return what surrounds points of the second map: (P, 2, h, w) x then y -> (P, L * 7 * 7, h, w).

        Values are ordered (level, x, y), as torchvision's are. Channels lie innermost in memory.
        """
        pairs, _, height, width = where.shape
        centre = where.flatten(2).transpose(1, 2)  # (P, h * w, 2)
        index, parts = [], []
        for number, level in enumerate(self._levels):
            scaled = centre / 2**number
            low = scaled.floor()
            parts.append(scaled - low)
            index.append(self._indexes(level, low))
        values = self._rows.gather(2, torch.cat(index, 2)).reshape(pairs, -1, LEVELS, WINDOW, WINDOW)
        part = torch.stack(parts, 2)[..., None, None]  # (P, h * w, L, 2, 1, 1)
        values = torch.lerp(values[..., :-1, :], values[..., 1:, :], part[..., 0, :, :])
        values = torch.lerp(values[..., :-1], values[..., 1:], part[..., 1, :, :])
        return values.reshape(pairs, height, width, -1).permute(0, 3, 1, 2)

    def _indexes(self, level: Level, low: Tensor) -> Tensor:
        """Return where a level's windows lie in the rows: (P, h * w, 2) whole numbers -> (P, h * w, 8 * 8)."""
        # Far outside of the frame any place of the ring will do; no whole number is as large as some floats.
        whole = low.clamp(-WINDOW, max(level.height, level.width) + WINDOW).long()[..., None] + self._offsets
        x = whole[..., 0, :].clamp(-1, level.width) + (1 + level.start)
        y = (whole[..., 1, :].clamp(-1, level.height) + 1) * (level.width + 2)
        return (x[..., :, None] + y[..., None, :]).flatten(2)


class State(NamedTuple):
    """What one update hands to the next.

    Attributes:
        hidden: (P, 96, h, w).
        gates: (P, 192, h, w), what the context adds to the update and the reset gate.
        candidate: (P, 96, h, w), what it adds to the candidate.
    """

    hidden: Tensor
    gates: Tensor
    candidate: Tensor


class Update:
    """torchvision's update block of RAFT-small, on maps whose channels lie innermost in memory.

    Args:
        block: with its weights, on its device; their order in memory is changed.
    """

    def __init__(self, block: Any) -> None:
        block.to(memory_format=torch.channels_last)
        self._motion, self._head, self._size = block.motion_encoder, block.flow_head, block.hidden_state_size
        cell = block.recurrent_block.convgru1
        gates = _Parts.of(torch.cat([cell.convz.weight, cell.convr.weight]), self._size, self._motion.out_channels)
        candidate = _Parts.of(cell.convq.weight, self._size, self._motion.out_channels)
        self._gates, self._candidate = gates, candidate
        self._biases = torch.cat([cell.convz.bias, cell.convr.bias]).detach(), cell.convq.bias.detach()

    def start(self, context: Tensor) -> State:
        """Return the state before the first update: (P, channels, h, w), the context encoder's maps."""
        context = innermost(context)
        hidden, rest = context[:, : self._size].tanh(), context[:, self._size :].relu()
        return State(
            hidden,
            F.conv2d(rest, self._gates.context, self._biases[0], padding=1),
            F.conv2d(rest, self._candidate.context, self._biases[1], padding=1),
        )

    def __call__(self, state: State, near: Tensor, flow: Tensor) -> tuple[State, Tensor]:
        """Return the next state and what is added to the flow: (P, 196, h, w) and (P, 2, h, w) -> (P, 2, h, w)."""
        motion, flow = self._motion, innermost(flow)
        seen = motion.convcorr2(motion.convcorr1(near))
        moved = motion.convflow2(motion.convflow1(flow))
        given = [motion.conv(torch.cat([seen, moved], 1)), flow]
        hidden = state.hidden
        gates = F.conv2d(torch.cat([hidden, *given], 1), self._gates.rest, padding=1).add_(state.gates).sigmoid_()
        update, reset = gates.chunk(2, 1)
        candidate = F.conv2d(torch.cat([reset * hidden, *given], 1), self._candidate.rest, padding=1)
        candidate = candidate.add_(state.candidate).tanh_()
        # Under autocast the hidden state stays in float32, as torchvision's does.
        hidden = torch.lerp(hidden, candidate.to(hidden.dtype), update.to(hidden.dtype))
        step: Tensor = self._head(hidden)
        return state._replace(hidden=hidden), step


class _Parts(NamedTuple):
    """A gate's weights by what they are applied to: the context, and the rest (hidden state and motion)."""

    context: Tensor
    rest: Tensor

    @classmethod
    def of(cls, weight: Tensor, hidden: int, motion: int) -> _Parts:
        weight, first = weight.detach(), weight.shape[1] - motion
        own, context, moved = weight[:, :hidden], weight[:, hidden:first], weight[:, first:]
        return cls(innermost(context), innermost(torch.cat([own, moved], 1)))

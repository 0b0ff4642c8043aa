"""What the decode stage does with labels: a slot's clips are augmented and get their class, then pairs are mixed.

All of it is drawn for the clip's place in the plan, so ranks, blocks and restarts change nothing. The pairs are the
slots 2k and 2k + 1 of the plan; the step's layout keeps them in one block.

V views a slot, T frames of H x W px, R draws of the forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from system.core.seeds import Purpose, generator
from system.data.classes import read_classes
from system.data.clip_augment import Augmentation
from system.data.clip_mixing import Mixing
from system.data.clips import Choice, ClipMaker
from system.data.columns import Batch, Column, label_columns
from system.data.dataset import run_uri
from system.data.scale import Frames
from system.errors import DataError
from system.methods.labelled import LabelledOptions
from system.recipe import Recipe


def forward_draws(seed: int, place: tuple[int, int], view: int, num_draws: int) -> NDArray[np.float32]:
    """Return what the forward pass takes of chance for a clip: (R,) float32 in [0, 1).

    Args:
        seed: of the run.
        place: (epoch, position) of the clip's slot.
        view: of the slot.
        num_draws: R.
    """
    return generator(seed, Purpose.FORWARD, *place, view).random(num_draws, np.float32)


class Labeller:
    """Labels and changes clips.

    Args:
        classes: names, in the order of their numbers.
        augmentation: of each clip.
        mixing: of pairs of clips; None: none.
        num_draws: R.
    """

    def __init__(
        self, classes: Sequence[str], augmentation: Augmentation, mixing: Mixing | None, num_draws: int
    ) -> None:
        self._numbers: Mapping[str, int] = {name: number for number, name in enumerate(classes)}
        self._augmentation, self._mixing, self._num_draws = augmentation, mixing, num_draws

    def columns(self) -> dict[str, Column]:
        """Describe the columns: `label`, `other` and `share`; `draws` where the forward pass takes some."""
        return label_columns(self._num_draws)

    def __call__(self, maker: ClipMaker, choice: Choice, frames: Frames) -> Batch:
        """Augment the views of one slot, and label them.

        Args:
            maker: of the run's clips.
            choice: what stands in the slot.
            frames: (V, T, H, W, 3), changed in their place.

        Returns:
            A value of each column for each of V; as long as nothing is mixed, `other` is `label`.

        Raises:
            DataError: if the index gives the video no class, or one that the run does not have.
        """
        return self.augmented(maker, choice.slot, self._number(maker, choice), frames)

    def augmented(self, maker: ClipMaker, slot: int, number: int, frames: Frames) -> Batch:
        """Augment a slot's clips, in their place, and return their columns as those of a class."""
        for view, clip in enumerate(frames):
            self._augmentation(clip, self._drawn(maker, Purpose.AUGMENT, slot, view))
        made = self.of_nothing(maker)
        made["label"][:] = made["other"][:] = number
        for view in range(len(made["label"]) if self._num_draws else 0):
            made["draws"][view] = forward_draws(maker.seed, maker.plan.position(slot), view, self._num_draws)
        return made

    def of_nothing(self, maker: ClipMaker) -> Batch:
        """Return the columns of rows of weight zero, of V views: class 0, mixed with nothing."""
        made = {name: np.zeros((maker.spec.views, *col.shape), col.dtype) for name, col in self.columns().items()}
        made["share"][:] = 1
        return made

    def mix(self, maker: ClipMaker, block: Batch) -> None:
        """Mix the clips of each pair of slots that both stand in a block; view v with view v.

        Args:
            maker: of the run's clips.
            block: columns of (slots, V, ...), changed in their place.
        """
        if self._mixing is None:
            return
        row_of = {int(slot): row for row, slot in enumerate(block["slot"][:, 0]) if block["weight"][row].any()}
        for slot, row in row_of.items():
            partner = row_of.get(slot + 1)
            if slot % 2 or partner is None:
                continue
            for view, (one, other) in enumerate(zip(block["frames"][row], block["frames"][partner], strict=True)):
                share = self._mixing(one, other, self._drawn(maker, Purpose.MIX, slot, view))
                if share < 1:
                    block["share"][[row, partner], view] = share
                    block["other"][row, view] = block["label"][partner, view]
                    block["other"][partner, view] = block["label"][row, view]

    def _number(self, maker: ClipMaker, choice: Choice) -> int:
        number = self._numbers.get(choice.video.label or "")
        if number is None:
            raise DataError(
                f"{maker.index.uri}: {choice.video.name} is of the class {choice.video.label!r}, which is none of the"
                f" run's {len(self._numbers)}; its index and classes.json do not belong together"
            )
        return number

    def _drawn(self, maker: ClipMaker, purpose: Purpose, slot: int, view: int) -> np.random.Generator:
        epoch, position = maker.plan.position(slot)
        return generator(maker.seed, purpose, epoch, position, view)


def columns_of_labels(recipe: Recipe) -> dict[str, Column]:
    """Describe the columns that a recipe's labels add; none for a method without labels."""
    return label_columns(recipe.record.num_draws(recipe.method, recipe.model)) if recipe.record.labelled else {}


def labeller(recipe: Recipe) -> Labeller | None:
    """Return what labels and augments the clips of a run, whose folder names its classes; None where it has no labels.

    Raises:
        DataError: if the run's folder has no classes.
    """
    options = recipe.method
    if not isinstance(options, LabelledOptions):
        return None
    augmentation = Augmentation(options.rand_augment, options.flip, options.erase)
    mixing = Mixing(options.mixup, options.cutmix, options.mix_share, options.switch_share) if options.mixes else None
    draws = recipe.record.num_draws(options, recipe.model)
    return Labeller(read_classes(run_uri(recipe)), augmentation, mixing, draws)

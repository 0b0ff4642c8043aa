"""Which weights of a file a model takes: its whole encoder, and of the rest what both have.

A part is the encoder, or one module of the rest: `decoder.blocks`, `decoder.head`, `mask_token`. A part is taken whole
or not at all, and nothing is taken if any part that both have differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from system.errors import WeightsError
from system.models.weights import Tensors, sizes_of, some

# Of the encoder; fine-tuned models do without.
LAST_NORM = ("encoder.norm.weight", "encoder.norm.bias")


@dataclass(frozen=True)
class Fit:
    """What a model takes of a file of weights.

    Attributes:
        take: tensors for the model, by name.
        fresh: parts of the model that the file does not have; they stay as they were drawn.
        unused: parts of the file that the model does not have.
        notes: what else a person should know.
    """

    take: Mapping[str, Tensor]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{len(self.take)} tensors taken"]
        parts += [f"drawn anew, since the file has none: {', '.join(self.fresh)}"] if self.fresh else []
        parts += [f"not used by this method: {', '.join(self.unused)}"] if self.unused else []
        return "; ".join([*parts, *self.notes])


def part_of(name: str) -> str:
    """Return the part that a parameter belongs to."""
    path = name.split(".")
    return "encoder" if path[0] == "encoder" else ".".join(path[: max(1, min(2, len(path) - 1))])


def fit(model: Tensors, tensors: Tensors, where: str) -> Fit:
    """Find what a model takes of a file.

    Args:
        model: its state, for names and shapes; may be on the meta device.
        tensors: of the file, in our naming.
        where: the file, for messages.

    Raises:
        WeightsError: if the encoder is not the file's, or a part that both have differs in names or shapes.
    """
    if not any(name in model for name in LAST_NORM):  # a classifier, which has another norm behind its pooling
        rest = {name: value for name, value in tensors.items() if name not in LAST_NORM}
        found = _fit(model, rest, where)
        return replace(found, unused=(*found.unused, "encoder.norm")) if len(rest) < len(tensors) else found
    return _fit(model, tensors, where)


def _fit(model: Tensors, tensors: Tensors, where: str) -> Fit:
    mine, theirs = {part_of(name) for name in model}, {part_of(name) for name in tensors}
    shared = mine & theirs | {"encoder"}
    both = sorted(model.keys() & tensors.keys(), key=lambda name: (part_of(name) != "encoder", name))
    odd = [name for name in both if tensors[name].shape != model[name].shape]
    problems = [
        f"{name} is {list(tensors[name].shape)} in the file and {list(model[name].shape)} in the model" for name in odd
    ]
    for names, others, says in ((model, tensors, "not in the file"), (tensors, model, "not in the model")):
        alone = [name for name in names if part_of(name) in shared and name not in others]
        problems += [f"{says}: {some(alone)}"] if alone else []
        odd += alone
    if problems:
        encoder_fits = all(part_of(name) != "encoder" for name in odd)
        raise WeightsError(_refusal(model, tensors, where, problems, encoder_fits=encoder_fits))
    take = {name: tensors[name] for name in model if part_of(name) in shared}
    return Fit(take, tuple(sorted(mine - shared)), tuple(sorted(theirs - shared)))


def _refusal(model: Tensors, tensors: Tensors, where: str, problems: list[str], *, encoder_fits: bool) -> str:
    more = [f"{len(problems) - 4} more differences"] if len(problems) > 4 else []
    theirs, mine = sizes_of(tensors, where), sizes_of(model, "the recipe's model")
    advice = "set the recipe's `model` to the file's sizes, or take other weights"
    if encoder_fits:
        advice += "; the encoder fits: `python -m jobs.import_weights --encoder-only` leaves the rest out"
    elif LAST_NORM[0] not in tensors and LAST_NORM[0] in model:
        advice += "; a fine-tuned model has no encoder.norm, take the pre-trained one that it came from"
    return f"{where} does not fit the model. File: {theirs}. Model: {mine}.\n  " + "\n  ".join(
        [*problems[:4], *more, advice]
    )


def take(module: nn.Module, found: Fit) -> None:
    """Copy the taken tensors into a module, on its device."""
    module.load_state_dict(dict(found.take), strict=False)

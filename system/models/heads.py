"""A classifier's head that comes with weights: whether its classes are those of the run, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from system.errors import WeightsError
from system.models.weights import Tensors, some

HEAD = "head.weight"
BIAS = "head.bias"
# Classes that differ are shown by so many of them.
EXAMPLES = 3


@dataclass(frozen=True)
class Head:
    """Weights whose head, if they have one, is for a run's classes.

    Attributes:
        tensors: in our naming.
        note: what a person should know of the head, if anything.
    """

    tensors: Tensors
    note: str | None = None


def without_head(tensors: Tensors) -> Head:
    """Leave the head out, so that it is drawn anew; the norm before it belongs to the encoder's features and stays."""
    kept = {name: value for name, value in tensors.items() if name not in (HEAD, BIAS)}
    return Head(kept, "its head is left out: method.new_head=true" if HEAD in tensors else None)


def head_for(tensors: Tensors, theirs: Sequence[str] | None, mine: Sequence[str], where: str) -> Head:
    """Bring the rows of a head into the order of a run's classes.

    Args:
        tensors: in our naming, with or without a head.
        theirs: names of the head's classes; None where nothing says them.
        mine: names of the run's classes.
        where: the weights come from, for messages.

    Raises:
        WeightsError: if these are other classes; says how many, and three of each.
    """
    head = tensors.get(HEAD)
    if head is None:
        return Head(tensors)
    if theirs is None:
        if len(head) != len(mine):
            raise WeightsError(
                f"{where} has a head of {len(head)} classes, whose names are not in it, and the labels are"
                f" {len(mine)}; {_WAY_OUT}"
            )
        return Head(tensors, f"its {len(head)} classes have no names: taken to be the run's, in their order")
    if len(theirs) != len(head) or len(set(theirs)) != len(theirs):
        raise WeightsError(f"{where} has a head of {len(head)} classes and names {len(set(theirs))}: it is damaged")
    problems = [
        f"{len(odd)} of {whose} {len(names)} classes are not {among}: {some(odd, EXAMPLES)}"
        for whose, names, others, among in (
            ("its", theirs, mine, "among the labels"),
            ("the labels'", mine, theirs, "in it"),
        )
        if (odd := [name for name in names if name not in set(others)])
    ]
    if problems:
        raise WeightsError(f"{where} has a head for other classes: {'; '.join(problems)}; {_WAY_OUT}")
    if list(theirs) == list(mine):
        return Head(tensors)
    rows = [list(theirs).index(name) for name in mine]
    moved: dict[str, Tensor] = {name: tensors[name][rows] for name in (HEAD, BIAS) if name in tensors}
    return Head({**tensors, **moved}, "its classes are brought into the run's order")


_WAY_OUT = "set method.new_head=true to draw the head anew, or take the labels that it was trained with"

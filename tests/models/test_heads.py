"""A head that comes with weights: for the same classes, in whatever order, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from system.errors import WeightsError
from system.models.heads import head_for, without_head
from system.models.weight_files import our_metadata, read_weights, write_weights

TENSORS = {
    "encoder.x": torch.ones(2),
    "fc_norm.weight": torch.ones(2),
    "head.weight": torch.tensor([[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]]),
    "head.bias": torch.tensor([0.0, 1.0, 2.0]),
}


def test_rows_follow_the_names_of_their_classes() -> None:
    found = head_for(TENSORS, ["run", "sit", "walk"], ["walk", "run", "sit"], "w")
    assert found.tensors["head.bias"].tolist() == [2.0, 0.0, 1.0]
    assert found.tensors["head.weight"][0].tolist() == [2.0, 2.5]
    assert found.note == "its classes are brought into the run's order"
    assert head_for(TENSORS, ["run", "sit", "walk"], ["run", "sit", "walk"], "w").note is None


@pytest.mark.parametrize(
    ("theirs", "mine", "says"),
    [
        (
            ["run", "sit", "walk"],
            ["run", "a", "b", "c", "d"],
            "w has a head for other classes: 2 of its 3 classes are not among the labels: sit, walk; 4 of the labels' 5"
            " classes are not in it: a, b, c and 1 more; set method.new_head=true to draw the head anew",
        ),
        (["run", "sit", "walk"], ["run", "sit"], r"1 of its 3 classes are not among the labels: walk; set method\.new"),
        (None, ["run", "sit"], "a head of 3 classes, whose names are not in it, and the labels are 2; set method"),
        (["run", "sit"], ["run", "sit"], "a head of 3 classes and names 2: it is damaged"),
    ],
)
def test_other_classes_are_refused_with_counts_and_examples(
    theirs: list[str] | None, mine: list[str], says: str
) -> None:
    with pytest.raises(WeightsError, match=says):
        head_for(TENSORS, theirs, mine, "w")


def test_a_head_without_names_is_taken_by_its_number_and_that_is_said() -> None:
    found = head_for(TENSORS, None, ["a", "b", "c"], "w")
    assert found.tensors is TENSORS
    assert found.note == "its 3 classes have no names: taken to be the run's, in their order"


def test_without_its_head_a_model_keeps_the_norm_of_its_features() -> None:
    found = without_head(TENSORS)
    assert sorted(found.tensors) == ["encoder.x", "fc_norm.weight"]
    assert found.note is not None
    assert without_head({"encoder.x": torch.ones(2)}).note is None


def test_names_of_classes_travel_with_the_file(tmp_path: Path) -> None:
    uri, names = str(tmp_path / "w.safetensors"), ["reiten, langsam", "w\u00e4hlen", '"walk"']
    write_weights(uri, TENSORS, our_metadata((3, None), names))
    assert read_weights(uri).classes == tuple(names)
    write_weights(uri, TENSORS, our_metadata((3, None)))
    assert read_weights(uri).classes is None
    write_weights(uri, TENSORS, our_metadata((3, None), classes=None) | {"classes": "walk"})
    with pytest.raises(WeightsError, match="not a JSON list"):
        read_weights(uri)

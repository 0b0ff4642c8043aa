"""Files of weights as people have them: good ones are read, bad ones are refused by name and run nothing."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from system.errors import WeightsError
from system.models.pickles import tensors_in
from system.models.weight_files import our_metadata, read_weights, write_weights
from system.models.weights import to_hugging_face
from tests.models.test_weights import fine_tuned, same, state


class Trap:
    """A pickle of it makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_released_file_with_its_arguments_and_optimizer_is_read(tmp_path: Path) -> None:
    path, ours = tmp_path / "checkpoint-799.pth", state()
    extra = {"optimizer": {"state": {0: torch.ones(3)}}, "epoch": 799, "args": argparse.Namespace(lr=1e-3, b=(8, 14))}
    torch.save({"model": {f"_orig_mod.{name}": value for name, value in ours.items()}, **extra}, path)
    found = read_weights(str(path))
    assert same(dict(found.tensors), ours)
    assert found.kind == "weights of the released code"
    assert found.heads == (None, None)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_fine_tuned_file_of_either_format_of_pytorch_is_read(tmp_path: Path, *, zipped: bool) -> None:
    torch.save({"module": fine_tuned(state())}, tmp_path / "tuned.pth", _use_new_zipfile_serialization=zipped)
    found, problem = tensors_in(tmp_path / "tuned.pth")
    assert not problem
    assert same(found, fine_tuned(state()))


def test_a_file_of_ours_keeps_names_that_no_convention_knows(tmp_path: Path) -> None:
    uri, tensors = str(tmp_path / "x.safetensors"), {"regressor.blocks.0.weight": torch.ones(2), **state()}
    write_weights(uri, tensors, our_metadata((3, 6), method="some"))
    found = read_weights(uri)
    assert same(dict(found.tensors), tensors)
    assert found.heads == (3, 6)
    assert same(dict(read_weights(uri).tensors), tensors)


@pytest.mark.parametrize("old_biases", [True, False])
def test_a_folder_of_hugging_face_is_read(tmp_path: Path, *, old_biases: bool) -> None:
    theirs = to_hugging_face(state(), old_biases=old_biases)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "videomae", "num_attention_heads": 3}))
    save_file(theirs, tmp_path / "model.safetensors", {"format": "pt"})
    found = read_weights(f"file://{tmp_path}")
    assert same(dict(found.tensors), state())
    assert found.heads == (3, None)


@pytest.mark.slow
def test_a_pickled_folder_of_hugging_face_is_read(tmp_path: Path) -> None:
    torch.save(to_hugging_face(state(), old_biases=True), tmp_path / "pytorch_model.bin")
    assert same(dict(read_weights(str(tmp_path)).tensors), state())


def trapped(folder: Path, *, zipped: bool = True) -> Path:
    trap = Trap(folder / "made")
    torch.save({"model": state(), "args": trap}, folder / "bad.pth", _use_new_zipfile_serialization=zipped)
    return folder / "bad.pth"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_needs_more_than_tensors_is_refused_and_does_nothing(tmp_path: Path, *, zipped: bool) -> None:
    found, problem = tensors_in(trapped(tmp_path, zipped=zipped))
    assert not found
    assert "could run code: posix.mkdir. If you trust it" in problem
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
def test_the_refusal_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"{tmp_path}/bad\.pth is a pickle .* could run code: posix.mkdir"):
        read_weights(str(trapped(tmp_path)))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    pickled, plain = tmp_path / "short.pth", tmp_path / "short.safetensors"
    torch.save({"model": state()}, pickled)
    pickled.write_bytes(pickled.read_bytes()[:-1000])
    assert tensors_in(pickled)[1].startswith("is damaged, cut off")
    write_weights(str(plain), state(), our_metadata((3, 3)))
    for keep in (-1000, 100, 0):
        plain.write_bytes(plain.read_bytes()[:keep])
        with pytest.raises(WeightsError, match=rf"{plain} is damaged, cut off"):
            read_weights(str(plain))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"weights": {"a": torch.ones(1)}}, "it has weights"),
        ([torch.ones(1)], "it has list"),
        ({"model": {}}, "holds no weights"),
        ({"model": {**state(), "epoch": 3}}, "has something else than tensors among its weights: epoch"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object, says: str) -> None:
    torch.save(content, tmp_path / "other.pt")
    assert says in tensors_in(tmp_path / "other.pt")[1]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.pth: there is no such file"):
        read_weights(str(tmp_path / "none.pth"))
    with pytest.raises(WeightsError, match="there are no weights; wanted is a file that ends in"):
        read_weights(str(tmp_path))
    (tmp_path / "weights").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"a file of weights ends in \.safetensors, \.pth"):
        read_weights(str(tmp_path / "weights"))
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(WeightsError, match="a file is wanted, this is a folder"):
        read_weights(str(tmp_path / "folder.pth"))
    save_file(state(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(WeightsError, match="model_type is videomae for weights that can be read, got 'vit'"):
        read_weights(str(tmp_path))

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import optical_flow

from system import storage
from system.errors import WeightsError
from system.motion.raft_weights import load_network, torchvision_name

State = dict[str, Tensor]


def original_names() -> list[str]:
    """The tensors of the original RAFT-small in the order of its modules."""
    layers = []
    for encoder in ("fnet", "cnet"):
        layers.append(f"{encoder}.conv1")
        for layer in (1, 2, 3):
            for block in (0, 1):
                layers += [f"{encoder}.layer{layer}.{block}.conv{number}" for number in (1, 2, 3)]
                if layer > 1 and block == 0:  # the blocks that halve the map
                    layers.append(f"{encoder}.layer{layer}.{block}.downsample.0")
        layers.append(f"{encoder}.conv2")
    layers += [f"update_block.encoder.{name}" for name in ("convc1", "convf1", "convf2", "conv")]
    layers += [f"update_block.gru.{name}" for name in ("convz", "convr", "convq")]
    layers += [f"update_block.flow_head.{name}" for name in ("conv1", "conv2")]
    return [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]


@pytest.fixture(scope="module")
def state() -> State:
    """RAFT-small's random weights by torchvision's names."""
    torch.manual_seed(3)
    return dict(optical_flow.raft_small(weights=None).state_dict())


@pytest.fixture(scope="module")
def original(state: State) -> State:
    """The same by the original's names, with the prefix of its published file: both list them in one order."""
    return {f"module.{name}": value for name, value in zip(original_names(), state.values(), strict=True)}


def equal(uri: str | Path, state: State) -> bool:
    loaded = load_network(str(uri)).state_dict()
    return list(loaded) == list(state) and all(torch.equal(loaded[name], state[name]) for name in state)


def test_the_originals_names_are_torchvisions_in_the_same_order(state: State) -> None:
    assert [torchvision_name(name) for name in original_names()] == list(state)


def test_torchvisions_names_stay_as_they_are(state: State) -> None:
    assert [torchvision_name(name) for name in state] == list(state)


@pytest.mark.parametrize("named", ["torchvision", "original", "original without prefix", "torchvision with prefix"])
@pytest.mark.parametrize("form", ["pth", "old pth", "safetensors"])
def test_a_file_of_either_naming_loads_to_the_last_bit(
    named: str, form: str, state: State, original: State, tmp_path: Path
) -> None:
    given = {
        "torchvision": state,
        "original": original,
        "original without prefix": {name.removeprefix("module."): value for name, value in original.items()},
        "torchvision with prefix": {f"module.{name}": value for name, value in state.items()},
    }[named]
    path = tmp_path / "weights.bin"  # its bytes say what it is, not its name
    if form == "safetensors":
        save_file(given, path)
    else:
        torch.save(OrderedDict(given), path, _use_new_zipfile_serialization=form == "pth")
    assert equal(path, state)


def test_a_file_uri_is_read(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "raft.pth")
    assert equal(f"file://{tmp_path}/raft.pth", state)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"motion.weights=.*none.pth: there is no such file"):
        load_network(str(tmp_path / "none.pth"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"motion.weights={tmp_path}"):
        load_network(str(tmp_path))


def test_another_network_is_refused_with_its_first_keys(tmp_path: Path) -> None:
    torch.save(optical_flow.raft_large(weights=None).state_dict(), tmp_path / "large.pth")
    with pytest.raises(WeightsError) as refused:
        load_network(str(tmp_path / "large.pth"))
    said = str(refused.value)
    assert f"motion.weights={tmp_path}/large.pth is not RAFT-small's: missing: " in said
    assert "unexpected: " in said
    assert "more" in said
    assert "raft_small file" in said
    assert len(said) < 1200


def test_a_missing_key_and_an_unexpected_one_are_named(state: State, tmp_path: Path) -> None:
    given = {**state, "head.weight": torch.zeros(1)}
    del given["context_encoder.conv.bias"]
    torch.save(given, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"missing: context_encoder.conv.bias; unexpected: head.weight\."):
        load_network(str(tmp_path / "odd.pth"))


def test_a_wrong_shape_is_named_with_both_shapes(state: State, tmp_path: Path) -> None:
    torch.save({**state, "context_encoder.conv.bias": torch.zeros(7)}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"of another shape: context_encoder.conv.bias \(7,\), not \(160,\)"):
        load_network(str(tmp_path / "odd.pth"))


def test_a_whole_training_checkpoint_is_refused_with_what_it_holds(state: State, tmp_path: Path) -> None:
    torch.save({"model": state, "epoch": 3}, tmp_path / "training.pth")
    with pytest.raises(WeightsError, match=r"no plain state dict .* but model, epoch; save the model's state_dict"):
        load_network(str(tmp_path / "training.pth"))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"path": Path("/")}, tmp_path / "pickle.pth")
    with pytest.raises(WeightsError, match="loads without running code"):
        load_network(str(tmp_path / "pickle.pth"))


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_a_torn_file_is_refused(form: str, state: State, tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", str(tmp_path / "torn")
    if form == "pth":
        torch.save(state, whole)
    else:
        save_file(state, whole)
    storage.write(torn, whole.read_bytes()[:200_000])
    with pytest.raises(WeightsError, match=r"torn is not a file of tensors"):
        load_network(torn)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    storage.write(str(tmp_path / "empty"), b"")
    with pytest.raises(WeightsError, match="is not a file of tensors"):
        load_network(str(tmp_path / "empty"))

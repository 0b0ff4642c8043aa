from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from system.errors import WeightsError
from system.models.pickles import tensors_in
from system.models.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from system.models.tokenizer_import import config_of, import_tokenizer

VQGAN = TokenizerConfig(kind="vqgan", num_codes=40, factor=16, width=32, latent_width=32, code_width=24)
GUMBEL = TokenizerConfig(kind="gumbel", num_codes=48, factor=8, width=32, latent_width=32, code_width=32)
F16_1024 = TokenizerConfig(kind="vqgan", num_codes=1024, factor=16)


def state_of(config: TokenizerConfig) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(Tokenizer(config).state_dict())


def lightning(config: TokenizerConfig, **more: Any) -> dict[str, Any]:
    """Return what a Lightning checkpoint of a VQGAN holds: the weights, those of the loss, and the trainer's state."""
    loss = {"loss.discriminator.main.0.weight": torch.zeros(4), "loss.perceptual_loss.net.0.bias": torch.zeros(2)}
    return {"epoch": 3, "global_step": 9, "state_dict": {**state_of(config), **loss}, "optimizer_states": [], **more}


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class of a package that is imported here and nowhere else, as Lightning's are where a checkpoint is written."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    made = type("ModelCheckpoint", (), {"__module__": name})
    module = types.ModuleType(name)
    module.ModelCheckpoint = made  # type: ignore[attr-defined]
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.mark.slow
def test_a_lightning_checkpoint_becomes_a_tokenizer(tmp_path: Path, callback: type) -> None:
    source, out = tmp_path / "last.ckpt", str(tmp_path / "out.safetensors")
    torch.save(lightning(VQGAN, callbacks={callback: {"best_model_score": torch.tensor(0.5)}}), source)
    import_tokenizer(str(source), out)
    loaded = load_tokenizer(out)
    assert loaded.config == VQGAN
    wanted = state_of(VQGAN)
    assert loaded.state_dict().keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("config", [VQGAN, GUMBEL], ids=lambda config: config.kind)
def test_safetensors_with_the_authors_names_and_half_precision_are_read(
    config: TokenizerConfig, tmp_path: Path
) -> None:
    source, out = tmp_path / "vqgan.safetensors", str(tmp_path / "out.safetensors")
    save_file({name: value.half() for name, value in state_of(config).items()}, source)
    import_tokenizer(str(source), out)
    loaded = load_tokenizer(out)
    assert loaded.config == config
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    "config",
    [
        F16_1024,
        F16_1024.model_copy(update={"num_codes": 16384}),
        GUMBEL,
        F16_1024.model_copy(update={"decoder": False}),
    ],
)
def test_which_network_it_is_follows_from_names_and_shapes(config: TokenizerConfig) -> None:
    with torch.device("meta"):
        state = Tokenizer(config).state_dict()
    assert config_of(state, "file") == config


class _RunsCode:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


@pytest.mark.slow
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    source, mark = tmp_path / "bad.ckpt", tmp_path / "mark"
    torch.save(lightning(VQGAN, callbacks=_RunsCode(mark)), source)
    with pytest.raises(WeightsError, match=r"bad.ckpt .*could run code: .*mkdir") as caught:
        import_tokenizer(str(source), str(tmp_path / "out.safetensors"))
    assert "keep its tensors alone" in str(caught.value)
    assert not mark.exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_an_object_of_lightning_that_is_more_than_a_name_is_refused(tmp_path: Path, callback: type) -> None:
    class Pretends:
        def __reduce__(self) -> tuple[Any, ...]:
            return callback, (1, 2)

    torch.save(lightning(VQGAN, callbacks=Pretends()), tmp_path / "objects.ckpt")
    tensors, problem = tensors_in(tmp_path / "objects.ckpt")
    assert not tensors
    assert "could run code: pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint" in problem


def test_another_model_is_named_by_what_it_has(tmp_path: Path) -> None:
    source, out = tmp_path / "other.safetensors", tmp_path / "out.safetensors"
    save_file({"blocks.0.attn.qkv.weight": torch.zeros(3, 1)}, source)
    with pytest.raises(WeightsError, match=r"other.\w+ is no VQGAN: .* are wanted, it has blocks.0.attn.qkv.weight"):
        import_tokenizer(str(source), str(out))
    assert not out.exists()


def test_missing_and_misshapen_weights_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    source, out = tmp_path / "torn.safetensors", tmp_path / "out.safetensors"
    state = state_of(VQGAN)
    del state["decoder.mid.attn_1.q.weight"]
    state["encoder.mid.block_1.conv1.weight"] = torch.zeros(64, 64, 3, 3)
    state["first_stage.extra"] = torch.zeros(1)
    save_file(state, source)
    with pytest.raises(WeightsError) as caught:
        import_tokenizer(str(source), str(out))
    told = str(caught.value)
    assert f"{source} is no vqgan tokenizer with 40 codes of 16 px" in told
    assert "1 missing (decoder.mid.attn_1.q.weight)" in told
    assert "1 of no such tokenizer (first_stage.extra)" in told
    assert "encoder.mid.block_1.conv1.weight is (64, 64, 3, 3), not (128, 128, 3, 3)" in told
    assert not out.exists()


def test_an_encoder_of_another_depth_is_refused() -> None:
    kept = {name: value for name, value in state_of(VQGAN).items() if not name.startswith("encoder.down.4")}
    kept = {name: value for name, value in kept.items() if not name.startswith("encoder.down.3")}
    with pytest.raises(
        WeightsError, match=r"f4.ckpt: its encoder has 3 stages; those with 4 .* and 5 .* are supported"
    ):
        config_of(kept, "f4.ckpt")


def test_a_missing_and_a_damaged_file_are_named(tmp_path: Path) -> None:
    for name in ("none.ckpt", "none.safetensors"):
        with pytest.raises(WeightsError, match=rf"{name}: there is no such file"):
            import_tokenizer(str(tmp_path / name), str(tmp_path / "out.safetensors"))
    torn = tmp_path / "torn.safetensors"
    save_file(state_of(GUMBEL), torn)
    torn.write_bytes(torn.read_bytes()[:-5000])
    with pytest.raises(WeightsError, match=r"torn.safetensors is damaged, cut off, or no safetensors file"):
        import_tokenizer(str(torn), str(tmp_path / "out.safetensors"))
    torch.save(lightning(VQGAN), tmp_path / "torn.ckpt")
    (tmp_path / "torn.ckpt").write_bytes((tmp_path / "torn.ckpt").read_bytes()[:-5000])
    assert "is damaged, cut off, or no file of PyTorch" in tensors_in(tmp_path / "torn.ckpt")[1]

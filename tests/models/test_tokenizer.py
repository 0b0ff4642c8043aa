from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from system.errors import WeightsError
from system.models import tokenizer as module
from system.models.codebooks import Codebook
from system.models.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer, save_tokenizer

SMALL = TokenizerConfig(kind="small", num_codes=32, factor=8, width=16, latent_width=16, code_width=4)
VQGAN = TokenizerConfig(kind="vqgan", num_codes=32, factor=8, width=32, latent_width=32, code_width=32)
GUMBEL = VQGAN.model_copy(update={"kind": "gumbel"})
ALL = [SMALL, VQGAN, GUMBEL]


def kind(config: TokenizerConfig) -> str:
    return config.kind


def made(config: TokenizerConfig) -> Tokenizer:
    """Return a tokenizer with random weights, and a book that lies among its latents."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(config)
    if isinstance(tokenizer.quantize, Codebook):
        latents = tokenizer.latents(torch.rand(2, 3, 32, 32)).permute(0, 2, 3, 1).flatten(0, 2)
        tokenizer.quantize.embedding.weight.copy_(latents)
    return tokenizer


def images(count: int = 2, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("config", ALL, ids=kind)
def test_codes_are_a_grid_and_the_same_every_time(config: TokenizerConfig) -> None:
    """The authors' Gumbel module draws noise in evaluation too, and gives other codes at each call."""
    tokenizer = made(config)
    codes = tokenizer.codes(images(), 4, 4)
    assert codes.shape == (2, 4, 4)
    assert codes.dtype == torch.int64
    assert 0 <= int(codes.min()) <= int(codes.max()) < 32
    assert len(set(codes.flatten().tolist())) > 1
    torch.manual_seed(7)
    assert torch.equal(tokenizer.codes(images(), 4, 4), codes)


@pytest.mark.parametrize("config", ALL, ids=kind)
def test_codes_become_pixels(config: TokenizerConfig) -> None:
    pixels = made(config).pixels(torch.arange(32).reshape(2, 4, 4))
    assert pixels.shape == (2, 3, 32, 32)
    assert 0 <= float(pixels.min()) < float(pixels.max()) <= 1


@pytest.mark.parametrize("config", ALL, ids=kind)
def test_a_tokenizer_is_frozen_whatever_is_done_to_the_model_around_it(config: TokenizerConfig) -> None:
    tokenizer = made(config)
    torch.nn.ModuleList([tokenizer]).train()
    assert not any(part.training for part in tokenizer.modules())
    assert not any(param.requires_grad for param in tokenizer.parameters())
    frames = images().requires_grad_()
    assert not tokenizer.codes(frames, 4, 4).requires_grad


def test_the_code_is_the_nearest_entrys() -> None:
    tokenizer = made(VQGAN)
    latents = tokenizer.latents(images(1))[0].flatten(1).T  # (places, C)
    book = tokenizer.quantize.vectors(torch.arange(32)[None, None])[0, :, 0].T  # (K, C)
    nearest = ((latents[:, None] - book[None]) ** 2).sum(-1).argmin(1)
    assert torch.equal(tokenizer.codes(images(1), 4, 4).flatten(), nearest)


def test_the_code_of_gumbel_is_the_best_scored() -> None:
    tokenizer = made(GUMBEL)
    scores = tokenizer.quantize.proj(tokenizer.latents(images(1)))  # type: ignore[operator]
    assert torch.equal(tokenizer.codes(images(1), 4, 4), scores.argmax(1))


def test_networks_see_images_from_minus_one_to_one() -> None:
    tokenizer = made(SMALL)
    seen: list[Tensor] = []
    tokenizer.encoder.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    tokenizer.codes(torch.cat([torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)]), 1, 1)
    assert (seen[0][0] == -1).all()
    assert (seen[0][1] == 1).all()


def test_images_are_scaled_to_the_grid_that_is_asked_for() -> None:
    tokenizer = made(SMALL)
    flat = torch.rand(3, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(3, 3, 32, 32)
    assert torch.equal(tokenizer.codes(flat, 2, 4), tokenizer.codes(flat[..., :16, :], 2, 4))
    assert tokenizer.codes(images(1, 50, 70), 3, 5).shape == (1, 3, 5)


def test_cutting_a_batch_changes_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, frames = made(SMALL), images(7)
    whole = tokenizer.codes(frames, 4, 4)
    monkeypatch.setattr(module, "CHUNK_PIXELS", 3 * 32 * 32)
    assert torch.equal(tokenizer.codes(frames, 4, 4), whole)


def test_codes_under_autocast_are_chosen_in_float32() -> None:
    tokenizer = made(GUMBEL)
    with torch.autocast("cpu", torch.bfloat16):
        codes = tokenizer.codes(images(), 4, 4)
        latents = tokenizer.latents(images())
    scores = torch.nn.functional.conv2d(latents.float(), *tokenizer.quantize.proj.parameters())  # type: ignore[union-attr]
    assert torch.equal(codes, scores.argmax(1))


@pytest.mark.parametrize("config", ALL, ids=kind)
def test_a_written_tokenizer_is_read_back(config: TokenizerConfig, tmp_path: Path) -> None:
    tokenizer, uri = made(config), str(tmp_path / "t.safetensors")
    save_tokenizer(tokenizer, uri)
    again = load_tokenizer(uri)
    assert again.config == config
    assert torch.equal(again.codes(images(), 4, 4), tokenizer.codes(images(), 4, 4))
    assert torch.equal(again.pixels(torch.ones(1, 2, 2).long()), tokenizer.pixels(torch.ones(1, 2, 2).long()))
    assert not any(param.requires_grad for param in again.parameters())


def test_without_its_decoder_a_tokenizer_gives_the_same_codes_and_no_pixels(tmp_path: Path) -> None:
    uri = str(tmp_path / "t.safetensors")
    alone = Tokenizer(VQGAN.model_copy(update={"decoder": False}))
    alone.load_state_dict(made(VQGAN).state_dict(), strict=False)
    save_tokenizer(alone, uri)
    bare = load_tokenizer(uri)
    assert torch.equal(bare.codes(images(), 4, 4), made(VQGAN).codes(images(), 4, 4))
    assert not any("decoder" in name or "post_quant" in name for name in bare.state_dict())
    with pytest.raises(WeightsError, match="has no decoder"):
        bare.pixels(torch.zeros(1, 2, 2, dtype=torch.int64))


def test_a_missing_file_is_named_with_the_jobs_that_make_one(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none.safetensors: there is no such file; jobs.train_tokenizer"):
        load_tokenizer(str(tmp_path / "none.safetensors"))


def test_a_damaged_file_and_one_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_tokenizer(made(SMALL), str(path))
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", b"PK\x03\x04" + whole):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"t.safetensors is damaged, cut off, or no safetensors file"):
            load_tokenizer(str(path))
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"t.safetensors is no tokenizer that this system wrote; .*import_tokenizer"):
        load_tokenizer(str(path))


def test_a_file_whose_description_is_not_known_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    for config in ('{"kind": "dalle"}', "[]", json.dumps(SMALL.model_dump() | {"factor": 4})):
        save_file({"x": torch.zeros(1)}, path, {"format": "tubelet-tokenizer", "tokenizer": config})
        with pytest.raises(WeightsError, match="written by another version"):
            load_tokenizer(str(path))


def test_weights_that_do_not_fit_are_named_and_none_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_tokenizer(made(SMALL), str(path))
    tensors = load_file(path)
    tensors["quantize.embedding.weight"] = torch.zeros(31, 4)
    tensors["quantize.more"] = tensors.pop("quant_conv.bias")
    save_file(tensors, path, {"format": "tubelet-tokenizer", "tokenizer": SMALL.model_dump_json()})
    with pytest.raises(WeightsError) as caught:
        load_tokenizer(str(path))
    told = str(caught.value)
    assert str(path) in told
    assert "1 missing (quant_conv.bias)" in told
    assert "1 of no such tokenizer (quantize.more)" in told
    assert "quantize.embedding.weight is (31, 4), not (32, 4)" in told

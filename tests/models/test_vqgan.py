"""The networks of taming-transformers, compared with facts about them: counts, names, costs, and single operations.

Parameter counts, the number and names of keys, and FLOPs were measured on the authors' code (commit 3ba01b2) for their
ImageNet f16 configuration (ch 128, ch_mult 1 1 2 2 4, attention at 16, 256 latent channels) and the Gumbel f8 one.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from system.models.tokenizer import Tokenizer, TokenizerConfig, tokenizer_flops
from system.models.vqgan import AttentionBlock, VQGANDecoder, VQGANEncoder

F16_1024 = TokenizerConfig(kind="vqgan", num_codes=1024, factor=16)
F16_16384 = TokenizerConfig(kind="vqgan", num_codes=16384, factor=16)
GUMBEL = TokenizerConfig(kind="gumbel", num_codes=8192, factor=8)


def on_meta(config: TokenizerConfig) -> Tokenizer:
    with torch.device("meta"):
        return Tokenizer(config)


def count(module: nn.Module) -> int:
    return sum(param.numel() for param in module.parameters())


@pytest.mark.parametrize(
    ("config", "whole", "without_decoder"),
    [(F16_1024, 72_141_699, 29_626_112), (F16_16384, 76_073_859, 33_558_272)],
)
def test_f16_has_the_authors_parameter_counts(config: TokenizerConfig, whole: int, without_decoder: int) -> None:
    tokenizer = on_meta(config)
    assert count(tokenizer) == whole
    assert count(tokenizer.encoder) == 29_298_176
    assert tokenizer.decoder is not None
    assert count(tokenizer.decoder) == 42_449_795
    assert count(on_meta(config.model_copy(update={"decoder": False}))) == without_decoder


def block(name: str, shortcut: bool = False) -> set[str]:
    parts = ["norm1", "conv1", "norm2", "conv2", *(["nin_shortcut"] if shortcut else [])]
    return {f"{name}.{part}" for part in parts}


def attention(name: str) -> set[str]:
    return {f"{name}.{part}" for part in ("norm", "q", "k", "v", "proj_out")}


def middle(name: str) -> set[str]:
    return block(f"{name}.mid.block_1") | attention(f"{name}.mid.attn_1") | block(f"{name}.mid.block_2")


def test_f16_has_the_authors_343_names() -> None:
    """Channels change in the first blocks of stages 2 and 4 on the way down, and of 3 and 1 on the way up."""
    wanted = {"encoder.conv_in", "encoder.norm_out", "encoder.conv_out", "quant_conv", "post_quant_conv"}
    wanted |= {"decoder.conv_in", "decoder.norm_out", "decoder.conv_out"} | middle("encoder") | middle("decoder")
    for stage in range(5):
        for number in range(2):
            wanted |= block(f"encoder.down.{stage}.block.{number}", shortcut=number == 0 and stage in (2, 4))
        for number in range(3):
            wanted |= block(f"decoder.up.{stage}.block.{number}", shortcut=number == 0 and stage in (3, 1))
        wanted |= {f"encoder.down.{stage}.downsample.conv"} if stage < 4 else set()
        wanted |= {f"decoder.up.{stage}.upsample.conv"} if stage else set()
    for number in range(2):
        wanted |= attention(f"encoder.down.4.attn.{number}")
    for number in range(3):
        wanted |= attention(f"decoder.up.4.attn.{number}")
    names = {f"{name}.{part}" for name in wanted for part in ("weight", "bias")} | {"quantize.embedding.weight"}
    state = on_meta(F16_1024).state_dict()
    assert set(state) == names
    assert len(names) == 343
    assert state["quantize.embedding.weight"].shape == (1024, 256)
    assert state["encoder.down.4.attn.0.q.weight"].shape == (512, 512, 1, 1)
    assert state["encoder.down.2.block.0.nin_shortcut.weight"].shape == (256, 128, 1, 1)


def test_gumbel_scores_its_codes_with_a_1x1_convolution() -> None:
    state = on_meta(GUMBEL).state_dict()
    assert {name for name in state if name.startswith("quantize.")} == {
        "quantize.proj.weight",
        "quantize.proj.bias",
        "quantize.embed.weight",
    }
    assert state["quantize.proj.weight"].shape == (8192, 256, 1, 1)
    assert "encoder.down.3.attn.1.q.weight" in state
    assert "encoder.down.2.attn.0.q.weight" not in state


@pytest.mark.parametrize(
    ("config", "places", "gflop"), [(F16_16384, 14, 107.6), (F16_16384, 7, 26.8), (GUMBEL, 14, 33.0)]
)
def test_codes_of_a_frame_cost_what_was_measured(config: TokenizerConfig, places: int, gflop: float) -> None:
    """224 px with 14 x 14 codes of 16 px, 112 px with 7 x 7; 112 px with 14 x 14 codes of 8 px."""
    assert tokenizer_flops(config, places, places) / 1e9 == pytest.approx(gflop, abs=0.06)
    assert on_meta(config.model_copy(update={"decoder": False})).flops(places, places) == tokenizer_flops(
        config, places, places
    )


def test_every_norm_has_32_groups_and_the_authors_epsilon() -> None:
    norms = [part for part in on_meta(F16_1024).modules() if isinstance(part, nn.GroupNorm)]
    assert len(norms) > 50
    assert {(norm.num_groups, norm.eps) for norm in norms} == {(32, 1e-6)}


def test_halving_pads_at_the_right_and_bottom_only() -> None:
    torch.manual_seed(0)
    halve = VQGANEncoder(8, 32, 32).down[0].downsample
    assert isinstance(halve, nn.Module)
    x = torch.randn(1, 32, 6, 6)
    out = halve(x)
    weight, bias = halve.conv.weight, halve.conv.bias  # type: ignore[union-attr]
    assert out.shape == (1, 32, 3, 3)
    corner = (weight * x[0, :, :3, :3]).sum((1, 2, 3)) + bias  # type: ignore[operator]
    assert torch.allclose(out[0, :, 0, 0], corner, atol=1e-5)
    last = F.pad(x[0, :, 4:, 4:], (0, 1, 0, 1))
    assert torch.allclose(out[0, :, 2, 2], (weight * last).sum((1, 2, 3)) + bias, atol=1e-5)  # type: ignore[operator]


def test_attention_is_one_head_over_all_places() -> None:
    torch.manual_seed(0)
    attend = AttentionBlock(32)
    x = torch.randn(2, 32, 3, 5)
    sequence = attend.norm(x).flatten(2).transpose(1, 2)  # (B, places, C)
    q, k, v = (F.linear(sequence, part.weight[:, :, 0, 0], part.bias) for part in (attend.q, attend.k, attend.v))
    mixed = F.scaled_dot_product_attention(q, k, v)
    out = F.linear(mixed, attend.proj_out.weight[:, :, 0, 0], attend.proj_out.bias).transpose(1, 2).reshape(x.shape)
    assert torch.allclose(attend(x), x + out, atol=1e-5)


@pytest.mark.parametrize("factor", [8, 16])
def test_towers_undo_each_others_resolution(factor: int) -> None:
    with torch.device("meta"):
        latents = VQGANEncoder(factor, 32, 24)(torch.empty(2, 3, 4 * factor, 2 * factor))
        assert latents.shape == (2, 24, 4, 2)
        assert VQGANDecoder(factor, 32, 24)(latents).shape == (2, 3, 4 * factor, 2 * factor)

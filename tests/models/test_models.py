from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from system.config import ModelSection
from system.core.clip import token_grid
from system.core.masks import tube_visible
from system.models.blocks import Attention, sinusoid
from system.models.decoders import PixelModel, set_activation_checkpointing
from system.models.sizes import pretraining_flops, shapes
from system.train.batch import split_tokens

GRID = token_grid(16, 224, 2, 16)
SMALL = token_grid(4, 32, 2, 16)


def model(size: str = "tiny", grid: object = GRID, **numbers: int) -> PixelModel:
    section = ModelSection.model_validate({"size": size, **numbers})
    return PixelModel(grid, *shapes(section))  # type: ignore[arg-type]


def count(module: nn.Module) -> int:
    return sum(param.numel() for param in module.parameters())


@pytest.mark.parametrize(
    ("size", "numbers", "parameters"),
    [
        ("small", {}, 24_029_376),
        ("base", {}, 94_210_944),
        ("large", {"decoder_depth": 12}, 342_996_992),
        ("large", {}, 317_782_016),
        ("huge", {}, 645_659_392),
    ],
)
def test_parameter_counts_are_videomaes_to_the_last_one(size: str, numbers: dict[str, int], parameters: int) -> None:
    with torch.device("meta"):
        assert count(model(size, **numbers)) == parameters


def test_encoder_and_decoder_of_base_have_videomaes_counts() -> None:
    with torch.device("meta"):
        base = model("base")
    assert count(base.encoder) == 86_227_200
    assert count(base.decoder) == 7_688_448


def test_positions_are_a_fixed_sinusoid_over_the_flattened_index_and_no_parameters() -> None:
    table = sinusoid(1568, 768)
    assert table[0, ::2].abs().max() == 0
    assert (table[0, 1::2] == 1).all()
    assert float(table[1, 0]) == pytest.approx(np.sin(1), abs=1e-6)
    assert float(table[1000, 501]) == pytest.approx(np.cos(1000 / 10000 ** (500 / 768)), abs=1e-5)
    small = model(grid=SMALL)
    assert not [name for name, _ in small.named_parameters() if "position" in name]
    assert not [name for name in small.state_dict() if "position" in name or "mean" in name]


def test_keys_have_no_bias() -> None:
    attention = Attention(12, 2)
    with torch.no_grad():
        attention.q_bias.copy_(torch.randn(12))
        attention.v_bias.copy_(torch.randn(12))
    seen: list[Tensor] = []
    x = torch.randn(1, 3, 12)
    q, k, v = torch.nn.functional.linear(x, attention.qkv.weight).chunk(3, -1)
    q, v = q + attention.q_bias, v + attention.v_bias

    def heads(values: Tensor) -> Tensor:
        return values.reshape(1, 3, 2, 6).transpose(1, 2)

    logits = heads(q) @ heads(k).transpose(-1, -2) * 6**-0.5
    seen.append((logits.softmax(-1) @ heads(v)).transpose(1, 2).reshape(1, 3, 12))
    assert torch.allclose(attention(x), attention.proj(seen[0]), atol=1e-6)


def test_weights_start_as_videomaes() -> None:
    tiny = model(grid=SMALL)
    assert all((param == 0).all() for name, param in tiny.named_parameters() if name.endswith("_bias"))
    bound = (6 / (192 + 768)) ** 0.5
    for name, param in tiny.named_parameters():
        if name.endswith("encoder.blocks.0.mlp.fc1.weight"):
            assert 0.95 * bound < float(param.detach().abs().max()) <= bound
    assert float(tiny.mask_token.detach().abs().max()) <= 0.02
    assert float(tiny.mask_token.detach().abs().max()) > 0


def inputs(clips: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    noise = np.random.default_rng(0).random((clips, SMALL.slots, SMALL.places), np.float32)
    shown, hidden = split_tokens(tube_visible(noise, SMALL, 0.5))
    return torch.rand(clips, 3, 4, 32, 32), torch.from_numpy(shown), torch.from_numpy(hidden)


def test_only_visible_tubelets_matter() -> None:
    tiny = model(grid=SMALL).eval()
    frames, shown, hidden = inputs(1)
    before = tiny(frames, shown, hidden)["pixels"]
    changed = frames.clone()
    slot, place = divmod(int(hidden[0, 0]), SMALL.places)
    row, col = divmod(place, SMALL.cols)
    changed[0, :, 2 * slot : 2 * slot + 2, 16 * row : 16 * row + 16, 16 * col : 16 * col + 16] = 0
    assert torch.equal(tiny(changed, shown, hidden)["pixels"], before)
    assert before.shape == (1, hidden.shape[1], SMALL.values)


def test_tubelets_are_embedded_as_a_conv3d_would() -> None:
    embed = model(grid=SMALL).encoder.patch_embed
    frames, shown, _ = inputs()
    normalized = (frames - embed.mean) / embed.std
    whole = embed.proj(normalized).flatten(2).transpose(1, 2)  # (B, N, D), slot-major
    wanted = whole.gather(1, shown[..., None].expand(-1, -1, whole.shape[-1]))
    assert torch.allclose(embed(frames, shown), wanted, atol=1e-5)


def test_activation_checkpointing_changes_no_gradient() -> None:
    tiny, data = model(grid=SMALL), inputs()
    gradients = []
    for on in (False, True):
        set_activation_checkpointing(tiny, on)
        tiny.zero_grad()
        tiny(*data)["pixels"].square().mean().backward()
        gradients.append([param.grad.clone() for param in tiny.parameters() if param.grad is not None])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


def test_flops_are_counted_as_measured() -> None:
    """METHODS: 70.9 GF a clip for ViT-B where all 1,568 tubelets are embedded; here only the 160 visible ones are."""
    ours = pretraining_flops(ModelSection(size="base"), GRID, 160)
    embedding_the_rest = 2 * 1536 * 768 * (1568 - 160)
    assert (ours + embedding_the_rest) / 1e9 == pytest.approx(70.9, rel=0.005)

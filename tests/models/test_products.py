"""Products on a CPU are PyTorch's to rounding, forward and backward, whichever way they go."""

from __future__ import annotations

import platform

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from system.models import products
from system.models.products import Linear, attend, linear


def near(found: Tensor, wanted: Tensor, share: float) -> bool:
    """Say whether the largest difference is a small share of the largest value."""
    return float((found - wanted).detach().abs().max()) <= share * float(wanted.detach().abs().max())


@pytest.mark.parametrize("shape", [(3, 50, 512), (7, 512)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_large_layer_s_outputs_and_gradients_are_pytorchs(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    own, wanted = Linear(512, 300, bias=bias), torch.nn.Linear(512, 300, bias=bias)
    wanted.load_state_dict(own.state_dict())
    first, second = (torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    scale = torch.randn(*shape[:-1], 300)
    for layer, x in ((own, first), (wanted, second)):
        (layer(x) * scale).sum().backward()
    assert near(own(first), wanted(second), 1e-5)
    assert first.grad is not None
    assert second.grad is not None
    assert near(first.grad, second.grad, 1e-5)
    for mine, theirs in zip(own.parameters(), wanted.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert near(mine.grad, theirs.grad, 1e-5)


def test_a_layer_of_what_is_not_contiguous_is_pytorchs() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(512, 40).t(), torch.randn(300, 512)
    assert near(linear(x, weight), F.linear(x, weight), 1e-5)
    turned = torch.randn(512, 300).t()
    assert near(linear(x, turned), F.linear(x, turned), 1e-5)


def test_a_layer_under_autocast_gives_bf16() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(512, 300)(torch.randn(4, 512)).dtype == torch.bfloat16


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("length", [96, 600], ids=["short", "long"])
def test_attention_and_its_gradients_are_pytorchs_in_float32(
    dtype: torch.dtype, share: float, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "BLOCK_ROWS", 256)  # whole blocks and a part of one
    torch.manual_seed(0)
    given = torch.randn(2, length, 3, 2, 16).to(dtype)
    scale = torch.randn(2, 2, length, 16).to(dtype)
    found, exact = given.clone().requires_grad_(), given.float().requires_grad_()
    query, key, value = found.permute(2, 0, 3, 1, 4).unbind(0)
    out = attend(query, key, value)
    query, key, value = exact.permute(2, 0, 3, 1, 4).unbind(0)
    wanted = F.scaled_dot_product_attention(query, key, value)
    torch.autograd.backward([(out * scale).sum(), (wanted * scale.float()).sum()])
    assert out.dtype == dtype
    assert near(out.float(), wanted, share)
    assert found.grad is not None
    assert exact.grad is not None
    assert near(found.grad.float(), exact.grad, share)


def test_long_sequences_keep_no_more_for_the_backward_pass_than_they_are_made_of() -> None:
    kept: list[int] = []
    q, k, v = (torch.randn(1, 2, 600, 16).requires_grad_() for _ in range(3))

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attend(q, k, v)
    assert sum(kept) <= 4 * q.numel()  # not the 2 x 600 x 600 scores


def test_a_large_layer_goes_through_onednn_where_it_is_written_for_the_processor_and_a_small_one_never() -> None:
    x = torch.randn(4, 512).requires_grad_()
    large, small = linear(x, torch.randn(300, 512)), linear(x[:, :8], torch.randn(8, 8))
    assert large.grad_fn is not None
    assert small.grad_fn is not None
    assert ("OneDNN" in large.grad_fn.name()) == (platform.machine() in ("x86_64", "AMD64"))
    assert "OneDNN" not in small.grad_fn.name()

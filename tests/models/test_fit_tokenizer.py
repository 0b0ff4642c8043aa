from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from system.models.fit_tokenizer import FitOptions, Fitted, fit_tokenizer

QUICK = FitOptions(num_codes=32, factor=8, width=96, steps=120, batch=16, crop_codes=4)
PALETTE = torch.tensor([[230, 30, 30], [30, 200, 40], [40, 60, 220], [240, 230, 60], [20, 20, 20], [220, 220, 220]])


def quilts(batches: int) -> list[Tensor]:
    """Four images of 32 x 48 px in each batch, of squares of 8 px in one of six colours."""
    draw = torch.Generator().manual_seed(0)
    squares = torch.randint(len(PALETTE), (batches, 4, 4, 6), generator=draw)
    pixels = PALETTE[squares].byte().repeat_interleave(8, 2).repeat_interleave(8, 3)
    return list(pixels.permute(0, 1, 4, 2, 3))


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    torch.set_num_threads(1)
    return fit_tokenizer(iter(quilts(16)), QUICK, seed=3)


def test_a_fitted_book_is_in_use(fitted: Fitted) -> None:
    """Six colours need six codes; a few squares get another one for what is beside them."""
    for report in (fitted.held_out, fitted.fitted):
        assert report.num_images == 8
        assert 5 < report.perplexity < 16


def test_codes_say_more_than_the_mean_colour_of_a_frame_and_on_images_held_out_too(fitted: Fitted) -> None:
    for report in (fitted.held_out, fitted.fitted):
        assert report.mean_colour_error > 0.05
        assert report.error < 0.1 * report.mean_colour_error


def test_a_tokenizer_that_was_not_fitted_says_less() -> None:
    unfitted = fit_tokenizer(quilts(16), FitOptions(**_plain(QUICK), steps=0), seed=3).held_out
    assert unfitted.error > unfitted.mean_colour_error


def _plain(options: FitOptions) -> dict[str, int]:
    names = ("num_codes", "factor", "width", "batch", "crop_codes")
    return {name: getattr(options, name) for name in names}


def test_the_same_images_and_seed_give_the_same_tokenizer_and_another_seed_another() -> None:
    few = FitOptions(**_plain(QUICK), steps=12)
    first, again, other = (fit_tokenizer(quilts(4), few, seed).tokenizer.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["quantize.embedding.weight"], other["quantize.embedding.weight"])


def test_fitting_leaves_the_global_random_numbers_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    fit_tokenizer(quilts(2), FitOptions(**_plain(QUICK), steps=2), 0)
    assert torch.equal(torch.rand(3), wanted)


def test_what_is_fitted_is_frozen(fitted: Fitted) -> None:
    assert not any(param.requires_grad for param in fitted.tokenizer.parameters())


def test_images_may_be_float_and_of_any_size_above_a_code() -> None:
    floats = [torch.rand(4, 3, 21, 35, generator=torch.Generator().manual_seed(0))]
    done = fit_tokenizer(floats, FitOptions(**_plain(QUICK), steps=3), 0)
    assert done.tokenizer.codes(floats[0], 2, 4).shape == (4, 2, 4)


def test_reading_ends_when_the_pool_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("system.models.fit_tokenizer.POOL_BYTES", 3 * 3 * 16 * 16)
    read = 0

    def endless() -> Iterator[Tensor]:
        nonlocal read
        while True:
            read += 1
            yield torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)

    fit_tokenizer(endless(), FitOptions(**_plain(QUICK), steps=1), 0)
    assert read == 3


@pytest.mark.parametrize(("images", "got"), [([], r"\(0, 3, 8, 8\)"), ([torch.zeros(5, 3, 7, 16)], r"\(5, 3, 0, 16\)")])
def test_too_few_or_too_small_images_are_refused(images: list[Tensor], got: str) -> None:
    with pytest.raises(ValueError, match=f"needs two images of at least 8 px, got {got}"):
        fit_tokenizer(images, QUICK, 0)


@pytest.mark.parametrize("wrong", [{"factor": 4}, {"num_codes": 1}, {"num_codes": 9000}])
def test_options_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"got {next(iter(wrong))}={next(iter(wrong.values()))}"):
        FitOptions(**wrong)

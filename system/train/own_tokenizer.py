"""A tokenizer of a run's own: a small one, fitted to frames of its videos before it trains."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from system import storage
from system.data.frames import clip_frames
from system.errors import DataError, RecipeError, ResumeError
from system.methods.base import ToFit
from system.models.fit_tokenizer import FitOptions, FitReport, fit_tokenizer
from system.models.tokenizer import Tokenizer, save_tokenizer
from system.recipe import Recipe

# Frames that a tokenizer is fitted to: 85 s of decoding at 24 clips a second.
NUM_IMAGES = 2048
# A book of which less than this share is in use has collapsed, or the videos show next to nothing.
FEW_CODES = 0.05
# Optimizer steps where nothing is said: about ten seconds on one core. More make it better, see jobs.train_tokenizer.
QUICK_STEPS = 200


def options_for(recipe: Recipe, num_codes: int) -> FitOptions:
    """Return how a run's tokenizer is fitted.

    Raises:
        RecipeError: if there are more codes than can be fitted.
    """
    try:
        return FitOptions(num_codes=num_codes, factor=8 if recipe.model.patch_px == 8 else 16, steps=QUICK_STEPS)
    except ValueError as error:
        raise RecipeError(f"method.codes={num_codes}: {error}") from error


def ensure_tokenizer(
    recipe: Recipe, index_uri: str, wanted: ToFit, say: Callable[[str], None], *, resumed: bool = False
) -> None:
    """Fit the tokenizer of a run, unless an earlier start has done so.

    Args:
        recipe: of the run.
        index_uri: of its index.
        wanted: where it lies, and its codes.
        say: takes lines for the user.
        resumed: whether the run has trained with one already: another one would give its codes other meanings.

    Raises:
        DataError: if the run's videos do not give two frames.
        ResumeError: if the tokenizer of a resumed run is gone.
        StorageFault: if storage does not answer.
    """
    if storage.exists(wanted.uri):
        return
    if resumed:
        raise ResumeError(
            f"{wanted.uri} is gone, the tokenizer whose codes this run has learned; put it back, or start anew under"
            " another run.name"
        )
    fit_from_videos(recipe, index_uri, wanted.uri, say, options=options_for(recipe, wanted.num_codes))


def fit_from_videos(
    recipe: Recipe,
    index_uri: str,
    out_uri: str,
    say: Callable[[str], None],
    *,
    options: FitOptions | None = None,
    num_images: int = NUM_IMAGES,
    device: torch.device | str = "cpu",
) -> Tokenizer:
    """Fit a small tokenizer to frames of a recipe's videos and write it.

    Args:
        recipe: data, clips and seed are taken from it.
        index_uri: of its index.
        out_uri: of the tokenizer's file.
        say: takes a line for the user.
        options: how; default what suits the recipe.
        num_images: frames, at most.
        device: to compute on.

    Raises:
        DataError: if the videos do not give two frames.
        StorageFault: if storage does not answer.
    """
    options = options or options_for(recipe, FitOptions().num_codes)
    say(f"fitting a tokenizer to the videos: {options.num_codes} codes of {options.factor} px, {options.steps} steps")
    began = time.monotonic()
    try:
        fitted = fit_tokenizer(clip_frames(recipe, index_uri, num_images), options, recipe.run.seed, device)
    except ValueError as error:
        raise DataError(f"{recipe.data.uri}: {error}") from error
    save_tokenizer(fitted.tokenizer, out_uri)
    say(f"tokenizer, on frames of its videos: {_told(fitted.fitted)}")
    say(f"  on frames of other videos: {_told(fitted.held_out)}")
    if fitted.fitted.perplexity < FEW_CODES * options.num_codes:
        say(
            f"  few of its codes are in use: do the videos show more? Else fit more steps, or {FEW_CODES:.0%} the codes"
        )
    say(f"  fitted in {time.monotonic() - began:.0f} s: {out_uri}")
    return fitted.tokenizer


def _told(report: FitReport) -> str:
    """Describe a report in a line."""
    share = report.error / max(report.mean_colour_error, 1e-12)
    return (
        f"perplexity {report.perplexity:.0f} of {report.num_codes} codes, error {share:.0%} of that of painting each of"
        f" {report.num_images} frames with its mean colour"
    )

"""What a worker of the run is: the device that is here, or an accelerator of the table whose step is reckoned.

No torch: mistakes are told before anything heavy is imported.
"""

from __future__ import annotations

from dataclasses import dataclass

from system.core.accelerators import ACCELERATORS, Accelerator, accelerator_of
from system.errors import RecipeError
from system.planning.rates import Rate
from system.recipe import Recipe

# Share of a data sheet's peak that a step reaches, where nobody says: VideoMAE's encoder sees few tokens, so its
# products are small. Assumed, not measured.
MFU = 0.35
# Bytes/s from a GPU to pinned memory of its host, assumed: half of what PCIe 4 with 16 lanes carries at most.
COPY_BYTES_PER_S = 16e9


@dataclass(frozen=True, slots=True)
class Worker:
    """What trains.

    Attributes:
        name: for a person.
        device: torch device that a step is measured on; None: it is reckoned.
        accelerator: that it is reckoned for.
        mfu: share of its peak that a step reaches.
    """

    name: str
    device: str | None
    accelerator: Accelerator | None = None
    mfu: float = MFU

    @property
    def on_gpu(self) -> bool:
        """Whether it takes a GPU."""
        return self.device != "cpu"


def known() -> str:
    """Name the accelerators that a step can be reckoned for."""
    return ", ".join(each.name for each in ACCELERATORS if each.bf16)


def asked_accelerator(recipe: Recipe, gpu: str | None, mfu: float | None) -> Accelerator | None:
    """Return the accelerator that a user names; None: the device that is here.

    Raises:
        RecipeError: if it is not known, or what is asked for contradicts itself or the recipe.
    """
    if gpu is None:
        if mfu is not None:
            raise RecipeError(f"--mfu={mfu:g} is of a GPU whose step is reckoned; say which with --gpu: {known()}")
        return None
    if recipe.resources.use_gpu is False:
        raise RecipeError(
            f"--gpu={gpu} and resources.use_gpu=false contradict each other; leave one out, or use"
            " resources.use_gpu=true"
        )
    for each in ACCELERATORS:
        if each.name == gpu.lower() and each.bf16:
            return each
    raise RecipeError(f"--gpu={gpu} is not known; known are {known()}. Without it a step is measured on the GPU here")


def worker_of(recipe: Recipe, gpu: str | None, mfu: float | None, here: str | None) -> Worker:
    """Choose what a step's time is for.

    Args:
        recipe: of the run.
        gpu: an accelerator's name, as the user says it.
        mfu: share of its peak; where it is said, a step is reckoned even if such a GPU is here.
        here: the driver's name of this machine's GPU; None: it has none.

    Raises:
        RecipeError: if it cannot be known, or what is asked for contradicts itself or the recipe.
    """
    accelerator = asked_accelerator(recipe, gpu, mfu)
    if accelerator is None:
        if here is not None and recipe.resources.use_gpu is not False:
            return Worker(here, "cuda")
        if recipe.resources.use_gpu is True:
            raise RecipeError(
                f"the recipe trains on GPUs (resources.use_gpu=true) and there is none here; say which with --gpu:"
                f" {known()}"
            )
        cores = recipe.resources.cpus_per_worker
        return Worker("a CPU core" if cores == 1 else f"{cores:g} CPU cores", "cpu")
    if here is not None and accelerator_of(here) is accelerator and mfu is None:
        return Worker(here, "cuda")
    if recipe.engine.precision != "bf16":
        raise RecipeError(
            f"engine.precision={recipe.engine.precision}: the table of --gpu knows the rates of bf16 alone; use"
            " engine.precision=bf16, or make the plan on such a GPU"
        )
    return Worker(accelerator.name, None, accelerator, MFU if mfu is None else mfu)


def reckoned(recipe: Recipe, worker: Worker) -> Rate:
    """Return the rate of a worker whose step is not measured: peak x MFU over what a clip costs."""
    assert worker.accelerator is not None
    passes = 4 if recipe.engine.activation_checkpointing else 3  # forward once or twice, and backward twice its cost
    flops = passes * recipe.record.flops(recipe.model, recipe.grid, recipe.method)
    each = worker.accelerator
    how = (
        f"{each.peak_flops / 1e12:g} TFLOP/s dense bf16 ({each.source}) at an MFU of {worker.mfu:.0%},"
        f" {flops / 1e9:.0f} GFLOP a clip"
    )
    return Rate(each.peak_flops * worker.mfu / flops, how, measured=False)

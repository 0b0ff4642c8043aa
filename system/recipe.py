"""A recipe: the frozen, typed description of one run, read from YAML.

recipe.yaml, which may extend one parent, then dotted overrides, then validation; errors come all at once and in our
words. Importing this file needs pydantic and yaml alone, so a laptop can check a recipe without torch, numpy or ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from system.config import (
    CheckpointSection,
    DataSection,
    EngineSection,
    MaskResources,
    ModelSection,
    MotionSection,
    ProbeSection,
    ResourcesSection,
    RunSection,
    TelemetrySection,
    TrainSection,
)
from system.core.clip import TokenGrid, token_grid
from system.core.schedules import num_steps, scaled_lr
from system.errors import RecipeError, ResumeError
from system.methods import TASKS, AnyOptions
from system.methods.base import MaskedOptions, Method
from system.methods.labelled import LabelledOptions
from system.models.sizes import shapes
from system.motion.base import CPU_SOURCES, check_motion
from system.recipe_tree import lay_overrides, read_tree
from system.recipe_words import in_our_words
from system.secret_words import refuse_secrets
from system.section import Section


class Recipe(Section):
    """Everything that a run is made of."""

    run: RunSection = Field(default_factory=RunSection)
    data: DataSection
    motion: MotionSection = Field(default_factory=MotionSection)
    model: ModelSection = Field(default_factory=ModelSection)
    method: AnyOptions
    train: TrainSection
    engine: EngineSection = Field(default_factory=EngineSection)
    resources: ResourcesSection = Field(default_factory=ResourcesSection)
    checkpoint: CheckpointSection = Field(default_factory=CheckpointSection)
    telemetry: TelemetrySection = Field(default_factory=TelemetrySection)
    probe: ProbeSection = Field(default_factory=ProbeSection)

    @model_validator(mode="after")
    def _sections_fit(self) -> Recipe:
        grid = self.grid
        shapes(self.model)
        if self.train.global_batch % self.data.views:
            raise ValueError(
                f"train.global_batch={self.train.global_batch} counts clips and is not a multiple of"
                f" data.views={self.data.views}; use {-(-self.train.global_batch // self.data.views) * self.data.views}"
            )
        if isinstance(self.method, MaskedOptions):
            _check_ratio(self.method.mask_ratio, grid)
        elif self.probe.uri is not None:
            raise ValueError(f"probe.uri is for pre-training, and method.name={self.method.name} is none; leave it out")
        if self.slots_per_step % self.slots_together:
            raise ValueError(
                f"train.global_batch={self.train.global_batch} is {self.slots_per_step} videos of a step, an odd"
                f" number, and method.mixup and method.cutmix mix them in pairs; use"
                f" train.global_batch={(self.slots_per_step + 1) * self.data.views}, or method.mix_share=0"
            )
        self.record.check(self.method, grid, self.model)
        if self.needs_motion:
            self._source_fits()
            check_motion(self.flow, self.data.size, self.data.decoder)
            _check_device(self.flow, self.resources.mask)
        return self

    def _source_fits(self) -> None:
        sources = self.record.sources
        if sources is not None and self.flow.source not in sources:
            raise ValueError(
                f"method.name={self.method.name} takes motion from {' or '.join(sorted(sources))} only, got"
                f" motion.source={self.motion.source};"
                f" use motion.source={min(sources)}, or another method"
            )

    @property
    def grid(self) -> TokenGrid:
        """The tokens of a clip."""
        return token_grid(self.data.num_frames, self.data.size, self.model.tubelet_frames, self.model.patch_px)

    @property
    def record(self) -> Method:
        """The method's record."""
        return TASKS[self.method.name]

    @property
    def needs_motion(self) -> bool:
        """Whether the method wants optical flow."""
        return bool(self.record.pairs(self.method, self.data.num_frames))

    @property
    def flow(self) -> MotionSection:
        """The section `motion` with `auto` resolved for the method."""
        source = self.record.motion if self.motion.source == "auto" else self.motion.source
        return self.motion.model_copy(update={"source": source})

    @property
    def extra_frames(self) -> tuple[int, ...]:
        """Offsets of the frames that are decoded beyond the sampled ones, original frames from the clip's first."""
        return self.record.extra_frames(self.method, self.data.num_frames, self.data.stride)

    @property
    def slots_per_step(self) -> int:
        """Videos of one step."""
        return self.train.global_batch // self.data.views

    @property
    def slots_together(self) -> int:
        """Neighbouring slots that have to lie in the same block: 2 where clips are mixed in pairs."""
        return 2 if isinstance(self.method, LabelledOptions) and self.method.mixes else 1

    def steps(self, num_videos: int) -> int:
        """Return the steps of the run over an index of `num_videos`."""
        if self.train.steps is not None:
            return self.train.steps
        assert self.train.epochs is not None
        return num_steps(self.train.epochs, num_videos, self.slots_per_step)

    def warmup_steps(self, num_videos: int) -> int:
        """Return the steps of the warm-up, at most those of the run."""
        if self.train.warmup_steps is not None:
            steps = self.train.warmup_steps
        elif self.train.warmup_epochs:
            steps = num_steps(self.train.warmup_epochs, num_videos, self.slots_per_step)
        else:
            steps = 0
        return min(steps, self.steps(num_videos))

    def learning_rates(self) -> tuple[float, float]:
        """Return the highest and the final learning rate for this batch."""
        counted = self.train.global_batch if self.train.lr_counts == "clips" else self.slots_per_step
        return scaled_lr(self.train.base_lr, counted), scaled_lr(self.train.min_lr, counted)

    def lr_scale(self, parameter: str) -> float:
        """Return the factor of a parameter's learning rate, by its name."""
        return self.record.lr_scale(parameter, self.model, self.method)

    @property
    def job(self) -> str:
        """The job that carries it out, `python -m jobs.<job>`."""
        return "finetune" if self.record.labelled else "pretrain"


def _check_ratio(ratio: float, grid: TokenGrid) -> None:
    """Refuse a share of hidden tokens that leaves a slot without visible or without hidden ones, cut or rounded up."""
    if int(grid.places * ratio) < 1 or int(grid.places * (1 - ratio)) < 1:
        least = ceil(1000 / grid.places) / 1000  # what is said is let through
        raise ValueError(
            f"method.mask_ratio={ratio} of {grid.places} places: a slot needs both visible and hidden ones;"
            f" use {least:.3f} to {1 - least:.3f}"
        )


def _check_device(motion: MotionSection, mask: MaskResources) -> None:
    """Refuse a device that the actors which compute flow would not have."""
    if motion.device == "cuda" and motion.source in CPU_SOURCES:
        raise ValueError(
            f"motion.device=cuda, and motion.source={motion.source} computes on CPUs; use motion.device=auto, or"
            " motion.source=raft"
        )
    if motion.device == "cuda" and not mask.gpus_per_actor:
        raise ValueError(
            "motion.device=cuda needs GPUs, got resources.mask.gpus_per_actor=0; use resources.mask.gpus_per_actor=0.25"
            " (of a GPU for each actor), or motion.device=auto"
        )
    if motion.device == "cpu" and motion.source not in CPU_SOURCES and mask.gpus_per_actor:
        raise ValueError(
            f"motion.device=cpu would hold GPUs idle, got resources.mask.gpus_per_actor={mask.gpus_per_actor:g}; use"
            " resources.mask.gpus_per_actor=0, or motion.device=auto"
        )


def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, told: list[str] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: of the YAML file.
        overrides: `section.field=value`, laid over the file.
        told: takes lines that the user should see, such as keys that an override dropped.

    Raises:
        RecipeError: with every problem, not only the first.
    """
    tree, lines = lay_overrides(read_tree(Path(path)), overrides)
    if told is not None:
        told += lines
    return recipe_from(tree, str(path))


def recipe_from(tree: Mapping[str, Any], where: str) -> Recipe:
    """Check a tree of plain values.

    Raises:
        RecipeError: with every problem, in our words; or if it holds a secret.
    """
    refuse_secrets(tree, where)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problems = [in_our_words(problem, tree, Recipe) for problem in error.errors()]
        raise RecipeError(f"{where}:\n  " + "\n  ".join(dict.fromkeys(problems))) from None


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe with every field resolved, as YAML that `load_recipe` reads back to one that means the same."""
    resolved = recipe.model_copy(update={"motion": recipe.flow}) if recipe.needs_motion else recipe
    return yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False, width=100)


def fields(recipe: Recipe) -> Iterator[tuple[str, Any, bool]]:
    """Yield (section.field, value, whether a resumed run may change it); of a nested section: section.section.field."""
    for name in type(recipe).model_fields:
        yield from _fields(name, getattr(recipe, name))


def _fields(where: str, section: BaseModel) -> Iterator[tuple[str, Any, bool]]:
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _fields(f"{where}.{name}", value)
            continue
        extra = info.json_schema_extra
        yield f"{where}.{name}", value, isinstance(extra, dict) and bool(extra.get("free"))


def resume_conflicts(old: Recipe, new: Recipe) -> list[str]:
    """Return a line for each field that a resumed run may not change and that differs."""
    before = {name: (value, is_free) for name, value, is_free in fields(old)}
    lines = []
    for name, value, is_free in fields(new):
        was = before.get(name, (None, False))[0]
        if name == "motion.source":
            if old.needs_motion and new.needs_motion and old.flow.source != new.flow.source:
                lines.append(f"{name}: the run has {old.flow.source!r}, the recipe says {new.flow.source!r}")
            continue
        if name == "data.uri" and str(value).endswith(".parquet"):
            continue  # an index says by its fingerprint whether it lists the same videos
        if not is_free and was != value and name != "run.storage":
            lines.append(f"{name}: the run has {was!r}, the recipe says {value!r}")
    return lines


def check_resume(old: Recipe, new: Recipe) -> None:
    """Refuse a recipe that would make another run of the one that exists under its name.

    Raises:
        ResumeError: names every field with both values.
    """
    lines = resume_conflicts(old, new)
    if lines:
        raise ResumeError(
            f"the run {new.run.name} exists with another recipe; give the new one another run.name, or take back:\n  "
            + "\n  ".join(lines)
        )

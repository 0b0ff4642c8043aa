"""The options of a method whose videos have labels: where these come from, and how clips are cut and changed."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from system.config import Sampling
from system.methods.base import MethodOptions

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Range = tuple[float, float]

# timm's words of RandAugment: magnitude, operations, share, deviation and limit of the magnitude, kind, set.
_FLOAT = r"\d+(\.\d+)?"  # timm reads no number that begins with a point
_RAND_AUGMENT = re.compile(rf"rand(-(m\d+|n\d+|p{_FLOAT}|mstd{_FLOAT}|mmax\d+|inc[01]|tweights|t3aw?))*", re.ASCII)


class LabelledOptions(MethodOptions):
    """The section of a method that learns labels; the defaults are those of VideoMAE's fine-tuning code."""

    labels: str = Field(
        "index", description="`index`: the index's column `label`; `folder`: folder names; or the URI of a list."
    )
    only_listed: bool = Field(False, description="Leave out videos that the list does not name; else they are refused.")
    classes: int | None = Field(None, ge=2, description="Number of classes. Default: as many as the labels have.")
    sampling: Sampling = Field(
        "dense", description="dense: T frames over T x stride; segments: one of each T-th of the video, for SSv2."
    )
    flip: Share = Field(0.5, description="Share of clips that are mirrored; 0 where left and right are labels (SSv2).")
    crop_area: Range = Field((0.08, 1.0), description="Share of a frame that a crop covers, from and to.")
    crop_ratio: Range = Field((3 / 4, 4 / 3), description="Width to height of a crop, from and to.")
    rand_augment: str | None = Field("rand-m7-n4-mstd0.5-inc1", description="timm's word for RandAugment; null: none.")
    erase: Share = Field(0.25, description="Share of clips of which a rectangle is erased, the same in all frames.")
    mixup: float = Field(0.8, ge=0, description="Beta's parameter of mixup; 0: none.")
    cutmix: float = Field(1.0, ge=0, description="Beta's parameter of cutmix, which cuts in H and W; 0: none.")
    mix_share: Share = Field(1.0, description="Share of clips that are mixed with another one.")
    switch_share: Share = Field(0.5, description="Share of cutmix among them, where both are on.")

    @property
    def mixes(self) -> bool:
        """Whether clips are mixed, in pairs."""
        return self.mix_share > 0 and (self.mixup > 0 or self.cutmix > 0)

    @field_validator("rand_augment")
    @classmethod
    def _word_of_timm(cls, value: str | None) -> str | None:
        if value is not None and not _RAND_AUGMENT.fullmatch(value):
            raise ValueError(f"is timm's word for RandAugment, such as rand-m7-n4-mstd0.5-inc1, or null, got {value!r}")
        return value

    @model_validator(mode="after")
    def _ranges(self) -> LabelledOptions:
        for name, (low, high), most in (("crop_area", self.crop_area, 1.0), ("crop_ratio", self.crop_ratio, 100.0)):
            if not 0 < low <= high <= most:
                raise ValueError(f"{name} needs 0 < from <= to <= {most:g}, got [{low:g}, {high:g}]")
        return self

"""The pre-training methods by name, and fine-tuning.

Adding a method: a file here, its record and its options in the two lists below, a recipe; the contract test does the
rest.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from system.methods.base import Method
from system.methods.classify import CLASSIFY, ClassifyOptions
from system.methods.mam2 import MAM2, MAM2Options
from system.methods.mgm import MGM, MGMOptions
from system.methods.mgmae import MGMAE, MGMAEOptions
from system.methods.motionmae import MOTIONMAE, MotionMAEOptions
from system.methods.videomae import VIDEOMAE, VideoMAEOptions

METHODS: dict[str, Method] = {method.name: method for method in (VIDEOMAE, MGMAE, MOTIONMAE, MAM2, MGM)}

# What a run can be: pre-training by one of them, or fine-tuning.
TASKS: dict[str, Method] = {**METHODS, CLASSIFY.name: CLASSIFY}

# The section `method` of a recipe: which of these it is, its `name` says.
AnyOptions = Annotated[
    VideoMAEOptions | MGMAEOptions | MotionMAEOptions | MAM2Options | MGMOptions | ClassifyOptions,
    Field(discriminator="name"),
]

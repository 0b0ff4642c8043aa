"""MGM: MGMAE's moving mask, driven by the motion vectors of the video's own bitstream (arXiv:2308.12962).

Fan et al. (ICCV 2023) let the codec's motion vectors guide where the mask is over time, so no flow network runs. Their
mask's shape, ratio and treatment of vectors are not public, and there is no code: the mask here is MGMAE's, carried
along the vectors that `motion.source: codec` reads while it decodes. docs/methods/mgm.md says what is known.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from system.methods.mgmae import MGMAE, CarriedMaskOptions


class MGMOptions(CarriedMaskOptions):
    """Switches of the masking; those that imitate MGMAE's released code have no place here."""

    name: Literal["mgm"] = "mgm"


MGM = replace(
    MGMAE,
    name="mgm",
    source="arXiv:2308.12962",
    options=MGMOptions,
    motion="codec",
    sources=frozenset({"codec"}),
)

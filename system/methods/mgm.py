"""MGM: MGMAE's moving mask, driven by the motion vectors of the video's own bitstream (arXiv:2308.12962).

Fan et al. (ICCV 2023) let the codec's motion vectors guide where the mask is over time, so no flow network runs. Their
mask's shape, ratio and treatment of vectors are not public, and there is no code: the mask here is MGMAE's, carried
along the vectors that `motion.source: codec` reads while it decodes. docs/methods/mgm.md says what is known.
"""

from __future__ import annotations

from typing import Literal

from system.methods.base import Method
from system.methods.mgmae import CarriedMaskOptions, carried_mask, carried_pairs, flops, num_visible
from system.methods.videomae import (
    check_decoder_mask,
    decoded,
    num_decoded,
    pixel_loss,
    pixel_model,
    pixel_target,
)


class MGMOptions(CarriedMaskOptions):
    """Switches of the masking; those that imitate MGMAE's released code have no place here."""

    name: Literal["mgm"] = "mgm"


MGM = Method(
    name="mgm",
    source="arXiv:2308.12962",
    options=MGMOptions,
    motion="codec",
    sources=frozenset({"codec"}),
    check=check_decoder_mask,
    pairs=carried_pairs,
    num_visible=num_visible,
    mask=carried_mask,
    num_decoded=num_decoded,
    decoded=decoded,
    targets={"pixels": pixel_target},
    build=pixel_model,
    loss=pixel_loss,
    flops=flops,
)

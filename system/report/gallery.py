"""The gallery of a run's report: clips as small pictures beside each other, and how their masks move."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from system.core.clip import TokenGrid
from system.report.markup import element, escape
from system.report.mask_motion import mask_motion, strip

if TYPE_CHECKING:
    from system.report.picture import ShownClip  # torch

Image = NDArray[np.uint8]

# Why a run of a classifier has none.
OF_A_CLASSIFIER = "a classifier hides nothing that could be shown"
# Clips of a report; a run's picture may have more.
MOST = 4
# Frames of a row at most, evenly over the clip's slots, and their side, px.
FRAMES, FRAME_PX = 8, 160
QUALITY = 82
# All pictures of a page together, bytes: clips beyond it are left out.
BUDGET = 2_000_000
# What the rows are, for who does not know the words.
WORDS = {
    "input": "the clip",
    "flow": "the hue is the direction, the strength the speed",
    "visible": "what the encoder sees; grey is hidden",
    "reconstruction": "what the model makes of it",
    "with true statistics": "the same with the true mean and contrast of every hidden patch, which flatters",
}
STRIP = "where the tokens that were visible half a clip before are now: green is seen, red is hidden"


@dataclass(frozen=True)
class Gallery:
    """The gallery: its markup, and what stands above it."""

    html: str
    lead: str


def gallery(clips: Sequence[ShownClip], grid: TokenGrid, names: Mapping[int, str]) -> Gallery | None:
    """Return the gallery of some clips; None if there are none.

    Args:
        clips: from picture.py.
        grid: of their tokens.
        names: of the videos.
    """
    if not clips:
        return None
    motions = [mask_motion(clip.visible, clip.flow, grid) for clip in clips]
    parts: list[str] = []
    # Those that move most first: they show what a mask does about it.
    for clip in sorted(clips, key=lambda clip: -float(np.abs(clip.flow).mean()) if clip.flow.size else 0.0)[:MOST]:
        part = _clip(clip, grid, names.get(clip.video_id, f"video {clip.video_id}"))
        if parts and sum(map(len, parts)) + len(part) > BUDGET:
            break
        parts.append(part)
    whole = motions[0]
    for each in motions[1:]:
        whole += each
    lead = f"How the masks move, over {len(clips)} clips: {whole.told()}."
    return Gallery("".join(parts), lead)


def _clip(clip: ShownClip, grid: TokenGrid, name: str) -> str:
    own = mask_motion(clip.visible, clip.flow, grid)
    rows = [_row(each.name, _note(each.name, each.note), each.images) for each in clip.rows]
    firsts = clip.rows[0].images
    if grid.slots > 1:
        rows.append(_row("masks along the flow", STRIP, strip(firsts, clip.visible, clip.flow, grid)))
    title = f"<h3>{escape(name)} <small>from frame {clip.start}</small></h3>"
    return f'<article class="clip">{title}{"".join(rows)}{element("p", own.told() + ".", "note")}</article>'


def _note(name: str, note: str) -> str:
    known = WORDS.get(name, "")
    if name == "reconstruction" and note:
        return f"{known} ({note})"
    return known or note


def _row(name: str, note: str, images: Sequence[Image]) -> str:
    chosen = sorted({round(place) for place in np.linspace(0, len(images) - 1, min(FRAMES, len(images)))})
    frames = "".join(
        f'<img src="{data_uri(images[place])}" alt="{escape(f"{name}, slot {place}")}">' for place in chosen
    )
    return f"<figure><figcaption><b>{escape(name)}</b> {escape(note)}</figcaption><div>{frames}</div></figure>"


def data_uri(image: Image) -> str:
    """Return an RGB image as the address of a JPEG that holds it, at most `FRAME_PX` px wide."""
    if image.shape[1] > FRAME_PX:
        height = round(image.shape[0] * FRAME_PX / image.shape[1])
        image = np.asarray(cv2.resize(image, (FRAME_PX, height), interpolation=cv2.INTER_AREA), np.uint8)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"

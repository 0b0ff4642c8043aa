"""How many machines of each kind a run had, and when: what was looked at, what follows from it, and its picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Of the picture, px: its width, the room for names at the left, a band's height and what is between two of them.
WIDTH, LEFT, RIGHT, BAND, GAP, LINE = 1180, 130, 20, 66, 16, 20
# Red, green and blue of lines, of what is there, of what is on its way, and of marks.
INK: Colour = (60, 60, 60)
THERE: Colour = (52, 110, 180)
COMING: Colour = (190, 214, 238)
MARK: Colour = (200, 60, 40)
TRAINED: Colour = (40, 140, 70)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a cluster found.

    Attributes:
        at_s: seconds since the first look.
        there: kind -> machines that are there.
        coming: kind -> machines that are being started.
        step: steps that the run has done.
        asked: what the autoscaler was asked for then: (what one actor, group or call asks for, how many).
    """

    at_s: float
    there: Mapping[str, int]
    coming: Mapping[str, int] = field(default_factory=dict)
    step: int = 0
    asked: Sequence[tuple[Mapping[str, float], int]] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened, and when: seconds since the first look."""

    at_s: float
    what: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """Looks at a cluster, in order, and what happened meanwhile."""

    looks: Sequence[Look]
    marks: Sequence[Mark] = ()

    def as_json(self) -> str:
        """Return it as text."""
        return json.dumps(asdict(self), indent=1)

    def counts(self, kind: str) -> list[int]:
        """Return how many machines of a kind each look found."""
        return [look.there.get(kind, 0) for look in self.looks]

    def changes(self, kind: str) -> list[tuple[float, int]]:
        """Return when the number of a kind's machines changed, and to what; first what it was at the beginning."""
        found: list[tuple[float, int]] = []
        for look, count in zip(self.looks, self.counts(kind), strict=True):
            if not found or found[-1][1] != count:
                found.append((look.at_s, count))
        return found

    def lines(self, kinds: Sequence[str]) -> Iterator[str]:
        """Yield a line for each kind: its numbers, and the seconds at which they were reached."""
        for kind in kinds:
            told = ", ".join(f"{count} at {at_s:.0f} s" for at_s, count in self.changes(kind))
            yield f"{kind}: {told}"


def timeline_from(text: str) -> Timeline:
    """Read a timeline from `as_json`."""
    values: dict[str, Any] = json.loads(text)
    looks = [Look(**{**each, "asked": [tuple(ask) for ask in each["asked"]]}) for each in values["looks"]]
    return Timeline(looks, [Mark(**each) for each in values["marks"]])


def _write(image: Image, text: str, at: tuple[int, int], colour: Colour = INK, size: float = 0.42) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


class _Scale:
    """Where a second lies on the picture."""

    def __init__(self, last_s: float) -> None:
        self.last_s = max(last_s, 1.0)

    def x(self, at_s: float) -> int:
        return LEFT + round((WIDTH - LEFT - RIGHT) * at_s / self.last_s)

    def ticks(self) -> range:
        every = next(each for each in (5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600) if self.last_s / each <= 16)
        return range(0, int(self.last_s) + 1, every)


def _steps_of(image: Image, looks: Sequence[Look], heights: Sequence[int], scale: _Scale, fill: Colour) -> None:
    """Fill what lies under a line of steps: each look's height, px above the band's floor, holds until the next one."""
    floor = image.shape[0] - 1
    ends = [look.at_s for look in looks[1:]] + [looks[-1].at_s]
    for look, end_s, height in zip(looks, ends, heights, strict=True):
        if height:
            cv2.rectangle(image, (scale.x(look.at_s), floor - height), (scale.x(end_s), floor), fill, -1)


def _band(timeline: Timeline, kind: str, scale: _Scale) -> Image:
    """Draw a kind's band: what is there, and on top of it what is coming."""
    image: Image = np.full((BAND, WIDTH, 3), 255, np.uint8)
    there = timeline.counts(kind)
    whole = [count + look.coming.get(kind, 0) for count, look in zip(there, timeline.looks, strict=True)]
    unit = (BAND - 10) // max(*whole, 1)
    _steps_of(image, timeline.looks, [unit * count for count in whole], scale, COMING)
    _steps_of(image, timeline.looks, [unit * count for count in there], scale, THERE)
    _write(image, kind, (8, BAND - 8), size=0.5)
    _write(image, f"at most {max(there, default=0)}", (8, BAND - 28))
    return image


def _trained(timeline: Timeline, scale: _Scale) -> Image:
    """Draw the steps that were done."""
    image: Image = np.full((BAND, WIDTH, 3), 255, np.uint8)
    last = max((look.step for look in timeline.looks), default=0)
    heights = [round((BAND - 10) * look.step / max(last, 1)) for look in timeline.looks]
    points = [(scale.x(look.at_s), BAND - 1 - each) for look, each in zip(timeline.looks, heights, strict=True)]
    cv2.polylines(image, [np.array(points, np.int32)], False, TRAINED, 2, cv2.LINE_AA)
    _write(image, "steps", (8, BAND - 8), size=0.5)
    _write(image, f"in all {last}", (8, BAND - 28))
    return image


def timeline_picture(timeline: Timeline, kinds: Sequence[str], title: str) -> bytes:
    """Draw how many machines of each kind there were, the steps that were done, and what happened.

    Args:
        timeline: with at least one look.
        kinds: of machines, from top to bottom.
        title: above all.

    Returns:
        A PNG file's bytes.
    """
    scale = _Scale(timeline.looks[-1].at_s)
    bands = [*(_band(timeline, kind, scale) for kind in kinds), _trained(timeline, scale)]
    top = 2 * LINE + 8
    bottom = top + len(bands) * (BAND + GAP)
    image: Image = np.full((bottom + LINE * (len(timeline.marks) + 2), WIDTH, 3), 255, np.uint8)
    for number, band in enumerate(bands):
        first = top + number * (BAND + GAP)
        image[first : first + BAND] = band
        cv2.line(image, (LEFT, first + BAND), (WIDTH - RIGHT, first + BAND), INK, 1)
    _write(image, title, (8, LINE), size=0.5)
    for second in scale.ticks():
        cv2.line(image, (scale.x(second), bottom - GAP), (scale.x(second), bottom - GAP + 4), INK, 1)
        _write(image, f"{second} s", (scale.x(second) - 8, bottom + 4), size=0.36)
    for number, mark in enumerate(timeline.marks, 1):
        x = scale.x(mark.at_s)
        cv2.line(image, (x, top - 8), (x, bottom - GAP), MARK, 1)
        _write(image, str(number), (x - 4, top - 12), MARK)
        _write(image, f"{number}: {mark.at_s:.0f} s  {mark.what}", (LEFT, bottom + LINE * (number + 1)), MARK)
    done, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    return encoded.tobytes()

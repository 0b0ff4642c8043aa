"""One line of the benchmark: a rate, what it is held against, and what it has to reach."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from system.benchmark.timing import Measured

Kind = Literal["ratio", "share", "at_least", "at_most"]


@dataclass(frozen=True, slots=True)
class Target:
    """What a line has to reach.

    Attributes:
        kind: `ratio`: so many times better than the conventional way; `share`: so much of the limit, 0 to 1;
            `at_least`, `at_most`: the figure itself, in the line's unit.
        bound: the least, or the most, that reaches it.
    """

    kind: Kind
    bound: float

    def __str__(self) -> str:
        """Return it as a person writes it."""
        if self.kind == "ratio":
            return f">= {self.bound:g}x"
        if self.kind == "share":
            return f">= {self.bound:.0%} of the limit"
        return f"{'>=' if self.kind == 'at_least' else '<='} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Line:
    """One measured figure.

    Attributes:
        stage: of `stages.STAGES`.
        name: unique in its stage, a few words.
        unit: of the three figures, such as `clips/s`, `ms` or `MiB`.
        ours: our figure, a median.
        conventional: that of the ordinary way, measured in the same run, interleaved; None: there is none, or a package
            of it is not installed.
        limit: what the machine allows; None: no such figure.
        targets: all of them have to be reached. Empty: the line informs.
        more: whether a larger figure is better.
        repeats: interleaved repeats that the medians are of.
        spread: (largest - smallest) / median of our figure over the repeats.
        says: what the conventional way and the limit are, and whatever else a reader has to know.
    """

    stage: str
    name: str
    unit: str
    ours: float
    conventional: float | None = None
    limit: float | None = None
    targets: tuple[Target, ...] = ()
    more: bool = True
    repeats: int = 1
    spread: float = 0.0
    says: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than the conventional way; above 1 is better, whatever the unit."""
        return self._better_than(self.conventional)

    @property
    def share(self) -> float | None:
        """Share of the limit that is reached, 1 is all of it, whatever the unit."""
        return self._better_than(self.limit)

    def _better_than(self, other: float | None) -> float | None:
        if other is None or other <= 0 or self.ours <= 0:
            return None
        return self.ours / other if self.more else other / self.ours

    def reached(self) -> bool | None:
        """Say whether every target is reached; None: none is set, or one cannot be judged since its peer is missing."""
        found = [self._reached(target) for target in self.targets]
        if False in found:
            return False
        return None if not found or None in found else True

    def _reached(self, target: Target) -> bool | None:
        if target.kind == "at_least":
            return self.ours >= target.bound
        if target.kind == "at_most":
            return self.ours <= target.bound
        value = self.ratio if target.kind == "ratio" else self.share
        return None if value is None else value >= target.bound

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, what follows from them included."""
        found = asdict(self)
        found["targets"] = [str(target) for target in self.targets]
        return {**found, "ratio": self.ratio, "share": self.share, "reached": self.reached()}


def rate_line(
    stage: str,
    name: str,
    ours: Measured,
    conventional: Measured | None,
    limit: Measured | None,
    targets: tuple[Target, ...],
    says: str,
) -> Line:
    """Return the line of rates in clips a second; its parts are as in `Line`."""
    return Line(
        stage,
        name,
        "clips/s",
        ours.median,
        None if conventional is None else conventional.median,
        None if limit is None else limit.median,
        targets,
        repeats=len(ours.rates),
        spread=ours.spread,
        says=says,
    )


def verdict(lines: list[Line] | tuple[Line, ...]) -> tuple[str, bool]:
    """Return the last line, `reached m of n: <names below>`, and whether all lines that can be judged are reached."""
    judged = [(line, line.reached()) for line in lines if line.targets]
    known = [(line, found) for line, found in judged if found is not None]
    below = [f"{line.stage} {line.name}" for line, found in known if not found]
    unknown = [f"{line.stage} {line.name}" for line, found in judged if found is None]
    text = f"reached {len(known) - len(below)} of {len(known)}"
    if below:
        text += f": below are {', '.join(below)}"
    if unknown:
        text += f" (not judged, since a peer is missing: {', '.join(unknown)})"
    return text, not below

"""What a replay of a step found: its clips with their losses and hashes, and how they compare with the record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReplayedClip:
    """One clip of the step.

    Attributes:
        slot: of the plan.
        view: of the slot.
        video: its name.
        start: first frame.
        attempt: 0 for the slot's own video, else which spare.
        weight: 0 where no video stood in the slot, or none can be read now.
        loss: with the weights that were loaded; None without weight.
        identity, pixels, mask: its hashes.
        why: there is no video now.
    """

    slot: int
    view: int
    video: str
    start: int
    attempt: int
    weight: float
    loss: float | None
    identity: int
    pixels: int
    mask: int
    why: str = ""


@dataclass(frozen=True)
class Replay:
    """A step, and how it compares with its record.

    Attributes:
        step: which.
        clips: all of it, in the plan's order.
        identities: whether the clips are those recorded.
        pixels: whether their pixels are.
        masks: whether their masks are.
        share: of the recorded mask bits that agree; None where none are recorded or all masks agree.
        from_network: whether a network made the masks.
        builds: of the decoders, recorded and here.
        mask_devices: recorded and here.
        not_trained: why the step's gradient was not used; "" if it was.
        weights_step: of the checkpoint that the losses are of.
        picture: of the clips with the largest losses, PNG.
    """

    step: int
    clips: tuple[ReplayedClip, ...]
    identities: bool
    pixels: bool
    masks: bool
    share: float | None
    from_network: bool
    builds: tuple[dict[str, str], dict[str, str]]
    mask_devices: tuple[str, str]
    not_trained: str
    weights_step: int
    picture: bytes | None

    @property
    def gone(self) -> dict[int, str]:
        """Slots whose video cannot be read now, and why."""
        return {clip.slot: clip.why for clip in self.clips if clip.why}

    @property
    def same_build(self) -> bool:
        """Whether the decoders are those of the record."""
        return self.builds[0] == self.builds[1]

    @property
    def as_recorded(self) -> bool:
        """Whether nothing differs but what another decoder build or device explains."""
        masks = self.masks or self.from_network
        return self.identities and not self.gone and ((self.pixels and masks) or not self.same_build)

    @property
    def verdict(self) -> str:
        """One line."""
        parts = {"identities": self.identities, "pixels": self.pixels, "masks": self.masks}
        equal = ", ".join(name for name, same in parts.items() if same)
        if all(parts.values()):
            return f"replay: step {self.step} equal: {equal}"
        differ = "; ".join(f"{name}{self._why(name)}" for name, same in parts.items() if not same)
        return f"replay: step {self.step} differs: {differ}; equal: {equal or 'nothing'}"

    def _why(self, name: str) -> str:
        recorded, here = (", ".join(f"{key} {build}" for key, build in sorted(each.items())) for each in self.builds)
        reasons = []
        if name != "identities" and self.gone:
            reasons.append(f"{len(self.gone)} videos cannot be read now")
        if name == "pixels":
            same = "the same decoder build" if self.same_build else f"recorded with {recorded}; here {here}"
            reasons.append(same)
        if name == "masks" and self.from_network:
            share = "no tokens recorded" if self.share is None else f"{self.share:.1%} of the recorded tokens equal"
            reasons.append(f"{share}; made on {self.mask_devices[0]}, here on {self.mask_devices[1]}")
        return f" ({'; '.join(reasons)})" if reasons else ""

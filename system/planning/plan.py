"""A run's capacity plan: from what was measured and what the recipe says to rates, hours, costs and intervals.

Arithmetic alone; probes find the figures, `told.py` writes them for a person.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from system.core.plan import StepLayout
from system.data.assemble import capped_blocks, clip_bytes, flow_device, lookahead_blocks, masks_beside_decoding
from system.planning.capacity import (
    HOUR_S,
    Reencoding,
    Speeds,
    Stage,
    Units,
    balanced,
    capacities,
    cores_per_worker,
    cost,
    limit,
)
from system.planning.interval import DAY_S, daly_s, stretch, young_s
from system.planning.rates import Rate
from system.planning.records import Checkpoints, Found, Plan, Reencoded, StageLine, Way, Wishes
from system.recipe import Recipe
from system.section import most

AS_IT_STANDS, BALANCED, LAYERED = "as the recipe stands", "balanced", "balanced, videos in layers"


def units_of(recipe: Recipe) -> Units:
    """Return how many of each a recipe has, at their most."""
    resources = recipe.resources
    masks = 0 if masks_beside_decoding(recipe) else most(resources.mask.actors)
    return Units(resources.read_actors, most(resources.decode_actors), masks, most(resources.num_workers))


def make_plan(recipe: Recipe, num_videos: int, layout: StepLayout, found: Found, wishes: Wishes) -> Plan:
    """Reckon a run.

    Args:
        recipe: of the run.
        num_videos: of its index.
        layout: how a step is cut for its workers.
        found: what was measured.
        wishes: what the user says.
    """
    units = units_of(recipe)
    real = 1 - layout.padding
    mask = found.mask.clips_per_s if found.mask else None
    speeds = Speeds(found.storage.clips_per_s, found.decode.clips_per_s, mask, found.step.clips_per_s * real)
    steps = recipe.steps(num_videos)
    clips = steps * recipe.train.global_batch
    epochs = steps * recipe.slots_per_step / num_videos
    rate = limit(speeds, units)[1]
    reencoding = _reencoding(recipe, num_videos, epochs, found)
    reckon = _Reckon(recipe, layout, clips, found, wishes)
    wanted = balanced(speeds, units, wishes.margin)
    ways = [reckon.way(AS_IT_STANDS, speeds, units), reckon.way(BALANCED, speeds, wanted)]
    if isinstance(reencoding, Reencoding) and isinstance(found.reencoded, Reencoded):
        after = found.reencoded
        faster = replace(
            speeds, decode=speeds.decode * after.faster, storage=speeds.storage / max(1e-9, after.bytes_ratio)
        )
        fitting = balanced(faster, units, wishes.margin)
        ways.append(reckon.way(LAYERED, faster, fitting, once=reencoding.once_hours))
    block = layout.clips_per_block * clip_bytes(recipe)
    return Plan(
        run=recipe.run.name,
        videos=num_videos,
        epochs=epochs,
        steps=steps,
        clips=clips,
        worker=wishes.worker,
        stages=_stages(recipe, found, speeds, units),
        cores_per_worker=cores_per_worker(speeds, units, wishes.margin),
        margin=wishes.margin,
        ways=tuple(ways),
        reencoding=reencoding,
        reencoded=found.reencoded if isinstance(found.reencoded, Reencoded) else None,
        checkpoints=reckon.checkpoints(limit(speeds, wanted)[1]),
        clip_bytes=clip_bytes(recipe),
        blocks_per_s=rate / layout.clips_per_block,
        lookahead_bytes=lookahead_blocks(recipe, units.workers) * block,
        store_bytes=capped_blocks(recipe, units.workers) * block,
        state_bytes=found.state_bytes,
        device_bytes=found.device_bytes,
        assumed=found.assumed,
    )


def _stages(recipe: Recipe, found: Found, speeds: Speeds, units: Units) -> tuple[StageLine, ...]:
    """Describe each stage; of masks beside decoding the units are the decode actors."""
    together = capacities(speeds, units)
    actor = "mask actor" if units.mask_actors else "core"
    rows: tuple[tuple[Stage, str, Rate | None, int], ...] = (
        ("storage", "read actor", found.storage, units.read_actors),
        ("decode", "core", found.decode, units.decode_actors),
        ("mask", actor, found.mask, units.mask_actors or units.decode_actors),
        ("step", "worker", found.step, units.workers),
    )
    return tuple(StageLine(stage, unit, rate, count, together[stage]) for stage, unit, rate, count in rows)


@dataclass(frozen=True, slots=True)
class _Reckon:
    """Hours and costs of one run in different ways."""

    recipe: Recipe
    layout: StepLayout
    clips: int
    found: Found
    wishes: Wishes

    def way(self, name: str, speeds: Speeds, units: Units, once: float = 0.0) -> Way:
        stage, rate = limit(speeds, units)
        hours = self.clips / rate / HOUR_S * (1 + self._overhead(name, rate))
        resources, cuda = self.recipe.resources, flow_device(self.recipe) == "cuda"
        cores = units.decode_actors + units.workers * resources.cpus_per_worker + (0 if cuda else units.mask_actors)
        gpus = 0.0
        if self.wishes.on_gpu:
            shares = units.workers * resources.train_gpus_per_worker
            shares += units.mask_actors * resources.mask.gpus_per_actor if cuda else 0.0
            gpus = max(float(units.workers), shares)
        gpu_hours, core_hours = gpus * hours, cores * hours + once
        return Way(
            name,
            units,
            stage,
            rate,
            hours,
            gpu_hours,
            core_hours,
            once,
            cost(gpu_hours, core_hours, self.wishes.prices),
        )

    def _overhead(self, name: str, clips_per_s: float) -> float:
        """Return what preemptions and checkpoints add: with the recipe's interval as it stands, else with the best."""
        made = self.checkpoints(clips_per_s)
        if made is None:
            return 0.0
        return made.own_overhead if name == AS_IT_STANDS else made.overhead

    def checkpoints(self, clips_per_s: float) -> Checkpoints | None:
        """Choose how often to write them at a rate; one is under way at most, so an interval lasts as long as it."""
        recipe, found, wishes = self.recipe, self.found, self.wishes
        if not wishes.preemptions_per_day:
            return None
        between, ranks = DAY_S / wishes.preemptions_per_day, self.layout.num_ranks
        stall = found.stall_s / ranks
        write = found.state_bytes / ranks / found.write_bytes_per_s if found.write_bytes_per_s else None
        step = recipe.train.global_batch / clips_per_s
        best = daly_s(stall, between)
        steps = max(1, round(best / step), ceil((write or 0.0) / step))
        lost = wishes.restart_s + (write or 0.0)
        own = recipe.checkpoint.every_steps
        return Checkpoints(
            between_s=between,
            stall_s=stall,
            write_s=write,
            restart_s=wishes.restart_s,
            young_s=young_s(stall, between),
            daly_s=best,
            every_steps=steps,
            overhead=stretch(steps * step, stall, lost, between) - 1,
            own_every_steps=own,
            own_overhead=stretch(own * step, stall, lost, between) - 1,
        )


def _reencoding(recipe: Recipe, num_videos: int, epochs: float, found: Found) -> Reencoding | str:
    after = found.reencoded
    if isinstance(after, str):
        return after
    before = recipe.data.views / found.decode.clips_per_s
    return Reencoding(num_videos, epochs, found.video_px / after.px_per_s, before, before / after.faster)

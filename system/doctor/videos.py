"""What a survey of videos means for a run: pure, from what was seen to findings with commands."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from math import ceil
from statistics import median

from system import storage
from system.core.clip import clip_span
from system.data.index import VideoRow
from system.doctor.findings import Finding, Severity, printable
from system.doctor.survey import Survey
from system.planning.records import Reencoded
from system.recipe import Recipe

PART = "data"
# Names that a finding has room for.
NAMED = 5
# A clip whose frames differ by less than this from its first frame shows nothing that moves: the noise of a codec is
# below one grey level, an object of a tenth of the image that moves by its own size is above two.
STATIC_LEVELS = 1.0
# Shares of the videos from which on something is more than a note.
MANY_STATIC, MANY_SHORT, MANY_SAME = 0.1, 0.1, 0.01
# Key frames farther apart than so many clips: most of what is decoded is thrown away.
FAR_KEYS = 2.0
# Decoding that becomes faster by so much is worth a command.
WORTH_FASTER = 1.5


def findings(found: Survey, recipe: Recipe, reencoded: Reencoded | str | None) -> list[Finding]:
    """Return what a survey means for a recipe.

    Args:
        found: the survey.
        recipe: of the run.
        reencoded: what re-encoding a few of the videos did, or why it was not tried; None: nobody asked.
    """
    told = [_listed(found), _readable(found, recipe.data.max_bad_ratio)]
    if found.videos:
        told += [
            _sizes(found, recipe.data.size),
            _lengths(found, clip_span(recipe.data.num_frames, recipe.data.stride, recipe.extra_frames), recipe),
            _key_frames(found, clip_span(recipe.data.num_frames, recipe.data.stride)),
        ]
    if found.clips:
        told.append(_static(found))
    told.append(_same(found))
    if reencoded is not None:
        told.append(_reencoding(found, recipe, reencoded))
    return told


def _listed(found: Survey) -> Finding:
    what = f"{found.total} videos in {found.uri}, {found.looked_at} of them looked at"
    if found.index_videos not in (None, found.total + found.torn):
        why = "a run reads what the index lists: it would not see the others, or miss what is gone"
        what += f"; the index beside them knows {found.index_videos}"
        return Finding(PART, "videos", "warning", what, why, _index(found.uri))
    return Finding(PART, "videos", "ok", what)


def _readable(found: Survey, limit: float) -> Finding:
    if not found.bad:
        return Finding(PART, "readable", "ok", f"all of {found.looked_at} open and decode")
    share = _bad_share(found)
    codes = ", ".join(
        f"{count} {code}" for code, count in Counter(code for code, _ in found.bad.values()).most_common()
    )
    first = [printable(f"{name}: {reason}") for name, (_, reason) in list(found.bad.items())[:NAMED]]
    more = f"\nand {len(found.bad) - NAMED} more, all of them with --json FILE" if len(found.bad) > NAMED else ""
    what = f"{_bad_of(found)} cannot be read ({codes})\n" + "\n".join(first) + more
    if share > limit:
        why = f"a run stops when more than data.max_bad_ratio={limit:g} of its videos are bad"
        fix = f"mend or remove them; or data.max_bad_ratio={min(1.0, ceil(120 * share) / 100):g}"
        return Finding(PART, "readable", "error", what, why, fix)
    why = "a spare stands in for each of them in every epoch; the run names them in quarantine.jsonl"
    return Finding(PART, "readable", "warning", what, why, f"mend or remove them; {_index(found.uri)}")


def _bad_share(found: Survey) -> float:
    """Return the share of all videos that are bad: of what the listing shows, and of the others as of the sample."""
    torn = found.torn / max(1, found.total + found.torn)
    return torn + (1 - torn) * (len(found.bad) - found.torn) / max(1, found.looked_at)


def _bad_of(found: Survey) -> str:
    if found.looked_at == found.total or not found.torn:
        return f"{len(found.bad)} of {found.looked_at + found.torn}"
    seen = f"{len(found.bad) - found.torn} of {found.looked_at} looked at"
    return f"{found.torn} of {found.total + found.torn} by the listing, and {seen}"


def _sizes(found: Survey, size: int) -> Finding:
    sides = sorted(min(each.width, each.height) for each in found.videos)
    shapes = Counter((each.width, each.height) for each in found.videos).most_common(3)
    codecs = ", ".join(f"{name} {count}" for name, count in Counter(each.codec for each in found.videos).most_common(4))
    usual = ", ".join(f"{width}x{height} ({count})" for (width, height), count in shapes)
    what = f"{usual}; short side {sides[0]} to {sides[-1]} px, half of them from {median(sides):.0f}; {codecs}"
    small = sum(side < size for side in sides)
    if small > len(sides) / 2:
        why = (
            f"{small} of {len(sides)} are smaller than a clip of data.size={size} px and are scaled up: blurred pixels"
        )
        return Finding(PART, "resolution", "warning", what, why, f"data.size={_fitting(median(sides))}")
    if median(sides) > 2.5 * size:
        why = f"clips have {size} px: most of the px that are fetched and decoded are scaled away"
        return Finding(PART, "resolution", "note", what, why, _shards(found.uri, "short-gop", size))
    return Finding(PART, "resolution", "ok", what)


def _fitting(side: float) -> int:
    return max(16, int(side) // 16 * 16)


def _lengths(found: Survey, span: int, recipe: Recipe) -> Finding:
    lengths = sorted(each.duration_s for each in found.videos)
    rates = Counter(round(each.fps) for each in found.videos).most_common(3)
    usual = ", ".join(f"{rate} fps ({count})" for rate, count in rates)
    what = f"{lengths[0]:.1f} to {lengths[-1]:.1f} s, half of them from {median(lengths):.1f} s; {usual}"
    short = [each for each in found.videos if each.num_frames < span]
    if not short:
        return Finding(PART, "durations", "ok", what)
    what += f"\n{len(short)} of {len(found.videos)} are shorter than a clip of {span} frames: {_names(short)}"
    why = "the last frame of a short video is repeated: motion ends in the middle of the clip"
    shortest = min(each.num_frames for each in short)
    stride = max(1, shortest // recipe.data.num_frames)
    severity: Severity = "warning" if len(short) > MANY_SHORT * len(found.videos) else "note"
    fix = f"data.stride={stride} data.num_frames={recipe.data.num_frames}" if stride < recipe.data.stride else ""
    return Finding(PART, "durations", severity, what, why, fix or f"remove them; {_index(found.uri)}")


def _key_frames(found: Survey, span: int) -> Finding:
    spacings = sorted(each.num_frames / max(1, len(each.key_frames)) for each in found.videos)
    usual = median(spacings)
    what = f"one in {usual:.0f} frames in half of the videos, {spacings[0]:.0f} to {spacings[-1]:.0f} in all"
    if usual <= FAR_KEYS * span:
        return Finding(PART, "key frames", "ok", what)
    lost = usual / 2
    why = f"decoding begins at the key frame before a clip: {lost:.0f} frames on average for a clip that spans {span}"
    return Finding(PART, "key frames", "note", what, why, _shards(found.uri, "short-gop"))


def _static(found: Survey) -> Finding:
    levels = sorted(clip.difference for clip in found.clips.values())
    still = [name for name, clip in found.clips.items() if clip.difference < STATIC_LEVELS]
    what = f"frames of a clip differ from its first by {median(levels):.1f} grey levels (median)"
    if not still:
        return Finding(PART, "motion", "ok", what)
    what += f"; {len(still)} of {len(levels)} clips stand still (less than {STATIC_LEVELS:g}): {_some(still)}"
    why = "where nothing moves masks that follow motion are tubes, and there is nothing to learn of time"
    severity: Severity = "warning" if len(still) > MANY_STATIC * len(levels) else "note"
    return Finding(
        PART, "motion", severity, what, why, f"look at them, remove slide shows and test cards; {_index(found.uri)}"
    )


def _same(found: Survey) -> Finding:
    if not found.same:
        return Finding(PART, "duplicates", "ok", "no two videos have the same bytes")
    beyond = sum(len(names) - 1 for names in found.same)
    groups = printable("; ".join(" = ".join(names[:3]) for names in found.same[:NAMED]))
    what = f"{beyond} video{'s have' if beyond > 1 else ' has'} the bytes of another one: {groups}"
    why = "they count as videos of their own: seen more often in each epoch, and in both of two splits"
    severity: Severity = "warning" if beyond > MANY_SAME * max(1, len(found.videos)) else "note"
    rest = sorted(name for names in found.same for name in names[1:])
    in_tar = any(".tar/" in name.lower() for name in rest)
    strange = any(not name.isprintable() for name in rest)  # it is shown otherwise than it would have to be typed
    if found.uri.endswith(".parquet") or storage.is_s3(found.uri) or in_tar or strange:
        return Finding(PART, "duplicates", severity, what, why, f"remove {_some(rest)}; {_index(found.uri)}")
    paths = " ".join(shlex.quote(storage.join(found.uri, name)) for name in rest[:NAMED])
    more = f" (and {len(rest) - NAMED} more, in --json FILE)" if len(rest) > NAMED else ""
    return Finding(PART, "duplicates", severity, what, why, f"rm {paths}{more}")


def _reencoding(found: Survey, recipe: Recipe, made: Reencoded | str) -> Finding:
    if isinstance(made, str):
        return Finding(PART, "re-encoding", "ok", f"not tried: {made}")
    what = (
        f"layered shards of {made.videos} of these videos decode {made.faster:.1f} times as fast and have"
        f" {made.bytes_ratio:.2f} times the bytes; a core makes {made.px_per_s / 1e6:.0f} million px a second"
    )
    if made.faster < WORTH_FASTER:
        return Finding(PART, "re-encoding", "ok", f"{what}: not worth it")
    why = "so many fewer cores feed the same GPUs; `jobs.plan` says after how many epochs that pays"
    fix = _shards(found.uri, "layered", stride=recipe.data.stride)
    return Finding(PART, "re-encoding", "note", what, why, fix)


def _shards(uri: str, layout: str, side: int | None = None, *, stride: int | None = None) -> str:
    more = f" --stride {stride}" if stride is not None else ""
    more += f" --short-side {round(1.15 * side / 2) * 2}" if side is not None else ""
    out = uri.removesuffix(".parquet").rstrip("/").removesuffix("/index") + "-shards"
    return f"python -m jobs.make_shards --data {shlex.quote(uri)} --out {shlex.quote(out)} --layout {layout}{more}"


def _index(uri: str) -> str:
    return f"python -m jobs.index --data {shlex.quote(uri.removesuffix('/index.parquet'))}"


def _names(videos: Sequence[VideoRow]) -> str:
    return _some([each.name for each in videos])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return printable(", ".join(names[:NAMED])) + more

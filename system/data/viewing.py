"""The views of whole videos, each video once: numbers of videos in, their bytes, then the frames of all their views.

Plain callables from columns to columns, as the stages of pre-training (stages.py), but without plan, draws and spares:
what is asked for is these videos. A row that comes in goes out; what could not be read of it is said in `error`, and
`seen` says which views are there.

B videos, V views of each (clip by clip), T frames of H x W px.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from system import storage
from system.core.clip import TokenGrid
from system.core.views import Views
from system.data.clips import key_frame_before, wanted_ranges
from system.data.columns import Batch, objects
from system.data.decode import ClipRequest
from system.data.index import Index, VideoRow
from system.data.job import Answer, Job, decode_job
from system.data.reading import Reading, Segments, fetch, pack_starts, unpack_segments
from system.data.sandbox import Limits, Sandbox
from system.data.sources import stored_video
from system.errors import DecodeError

# Verdicts that hold for all clips of a video; after any other its clips are tried one by one.
_OF_VIDEO = ("open", "storage")


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """What is looked at of each video.

    Attributes:
        grid: tokens of a clip.
        stride: original frames from one sampled frame to the next.
        views: of a video.
        decoder: `auto` or a decoder's name.
        limits: of the decode child.
    """

    grid: TokenGrid
    stride: int
    views: Views
    decoder: str = "auto"
    limits: Limits = field(default_factory=Limits)

    def clips(self, video: VideoRow) -> tuple[tuple[int, ...], ...]:
        """Return the frame numbers of each clip of a video."""
        return self.views.frames(max(1, video.num_frames), self.grid.num_frames, self.stride)

    def view_bytes(self) -> int:
        """Return the bytes of one view's frames."""
        return self.grid.num_frames * self.grid.height * self.grid.width * 3


def together(video: VideoRow, clips: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return which clips of a video are decoded at once: those between which no key frame lies.

    A decoder that begins at the key frame before the second of two such clips would come through the first one again.
    Of a long video each clip is decoded from its own key frame, and what lies between two clips is not.
    """
    groups: list[list[int]] = []
    last = -1
    for number in sorted(range(len(clips)), key=lambda each: clips[each][0]):
        first = clips[number][0]
        if groups and (first <= last or not _key_frame_between(video, last, first)):
            groups[-1].append(number)
        else:
            groups.append([number])
        last = max(last, *clips[number])
    return groups


def _key_frame_between(video: VideoRow, after: int, until: int) -> bool:
    return bisect_right(video.key_frames, until) > bisect_right(video.key_frames, after)


class ViewReader:
    """Numbers of videos to their bytes.

    Args:
        index: of the videos.
        spec: what is looked at.
    """

    def __init__(self, index: Index, spec: ViewSpec) -> None:
        self._index, self._spec = index, spec

    def __call__(self, batch: Batch) -> Batch:
        """`video_id` (B,) in; the same with `starts`, `bytes` and `error` out.

        Raises:
            StorageFault: if storage does not answer.
            DataError: if storage refuses.
        """
        answers = fetch([self._reading(self._index.row(int(video))) for video in batch["video_id"]])
        got: list[Segments] = [() if isinstance(answer, DecodeError) else answer for answer in answers]
        return {
            "video_id": batch["video_id"],
            "error": objects([_words(each) if isinstance(each, DecodeError) else "" for each in answers]),
            "starts": objects([pack_starts(segments) for segments in got]),
            "bytes": objects([b"".join(data for _, data in segments) for segments in got]),
        }

    def _reading(self, video: VideoRow) -> Reading:
        clips = self._spec.clips(video)
        ranges = [
            each
            for group in together(video, clips)
            for each in wanted_ranges(video, min(clips[group[0]]), max(max(clips[number]) for number in group))
        ]
        merged = storage.merge_ranges(ranges, gap=0)
        return Reading(0, 0, video.video_id, video.uri, video.byte_start, tuple(merged))


@dataclass(slots=True)
class _Task:
    """Clips of one video that are decoded at once."""

    row: int
    clips: list[int]


class ViewDecoder:
    """Bytes of videos to the frames of their views, in a decode child.

    Args:
        index: of the videos.
        spec: what is looked at.
    """

    def __init__(self, index: Index, spec: ViewSpec) -> None:
        self._index, self._spec = index, spec
        self._sandbox = Sandbox(spec.views.count * spec.view_bytes(), spec.limits)

    def start(self) -> None:
        """Start the decode child ahead of the first batch."""
        self._sandbox.start()

    def close(self) -> None:
        """End the decode child."""
        self._sandbox.close()

    def __call__(self, batch: Batch) -> Batch:
        """What `ViewReader` gives in; `video_id`, `error`, `seen` (B, V) and `frames` (B, V, T, H, W, 3) uint8 out."""
        spec, grid, count = self._spec, self._spec.grid, len(batch["video_id"])
        shape = (count, spec.views.clips, spec.views.crops)
        frames = np.zeros((*shape, grid.num_frames, grid.height, grid.width, 3), np.uint8)
        seen = np.zeros(shape, bool)
        errors: list[list[str]] = [[error] if error else [] for error in batch["error"]]
        videos = [self._index.row(int(video)) for video in batch["video_id"]]
        tasks = [
            _Task(row, group)
            for row in range(count)
            if not errors[row]
            for group in together(videos[row], spec.clips(videos[row]))
        ]
        self._run(tasks, batch, videos, frames, seen, errors)
        return {
            "video_id": batch["video_id"],
            "error": objects(["; ".join(dict.fromkeys(told)) for told in errors]),
            "seen": seen.reshape(count, -1),
            "frames": frames.reshape(count, spec.views.count, *frames.shape[3:]),
        }

    def _run(
        self,
        tasks: Sequence[_Task],
        batch: Batch,
        videos: Sequence[VideoRow],
        frames: NDArray[np.uint8],
        seen: NDArray[np.bool_],
        errors: list[list[str]],
    ) -> None:
        """Decode; what fails together is tried clip by clip, so that a damaged place costs its own clips only."""
        again = []
        jobs = [self._job(task, batch, videos[task.row]) for task in tasks]
        for task, answer in zip(tasks, self._sandbox.run(jobs), strict=True):
            if not isinstance(answer, DecodeError):
                self._take(task, answer, videos[task.row], frames[task.row])
                seen[task.row, task.clips] = True
            elif len(task.clips) > 1 and answer.code not in _OF_VIDEO:
                again += [_Task(task.row, [clip]) for clip in task.clips]
            else:
                errors[task.row].append(_words(answer))
        if again:
            self._run(again, batch, videos, frames, seen, errors)

    def _wanted(self, task: _Task, video: VideoRow) -> NDArray[np.int64]:
        """Return the frames of a task's clips, each of them once, ascending."""
        clips = self._spec.clips(video)
        return np.unique([clips[number] for number in task.clips])

    def _job(self, task: _Task, batch: Batch, video: VideoRow) -> Job:
        wanted = tuple(self._wanted(task, video).tolist())
        in_layers = video.layers and not any(frame % video.layers for frame in wanted)
        request = ClipRequest(
            wanted,
            self._spec.views.squares(),
            self._spec.grid.height,
            self._spec.decoder,
            key_frame_before(video, wanted[0]),
            video.layers if in_layers else 0,
            size_px=(video.width, video.height),
        )
        segments = unpack_segments(batch["starts"][task.row], batch["bytes"][task.row])
        return decode_job(stored_video(video.uri, video.byte_start, video.num_bytes, segments), request)

    def _take(self, task: _Task, answer: Answer, video: VideoRow, into: NDArray[np.uint8]) -> None:
        """Put what was decoded in its places: (crops, frames, H, W, 3) into (clips, crops, T, H, W, 3)."""
        assert answer.frames is not None
        wanted, clips = self._wanted(task, video), self._spec.clips(video)
        for number in task.clips:
            into[number] = answer.frames[:, np.searchsorted(wanted, clips[number])]


def _words(error: DecodeError) -> str:
    return f"{error.code}: {error.reason}"

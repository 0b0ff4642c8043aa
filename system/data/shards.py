"""Packing videos into tar shards, as they are or re-encoded, so that a later run decodes faster.

Shard k holds a fixed run of the source index's videos. `shard-k.json`, written after its tar, says what is in it and
marks it as done; so the job can be started again at any time and goes on where it was. Plain tar: any tool reads it.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from system import storage
from system.core.seeds import Purpose, generator
from system.data.index import Index, IndexWriter, Rejected, VideoRow
from system.data.sandbox import Limits, Video, transcode_job
from system.data.sources import Candidate, SandboxPool, in_order, index_row, probe, stored_video
from system.errors import DataError, DecodeError

Layout = Literal["as-is", "short-gop", "layered"]
# The most frames between two references that x264 knows is 16.
LARGEST_LAYERS = 17
# Re-encoding a long video takes minutes.
DEADLINE_S = 1800.0
_SIDECAR = re.compile(r"/shard-(\d{6,})\.json$")


@dataclass(frozen=True, slots=True)
class ShardOptions:
    """How shards are made; a job that goes on must be given the same.

    Attributes:
        layout: `as-is` copies the bytes, `short-gop` re-encodes, `layered` re-encodes in layers of a stride.
        videos_per_shard: videos of one shard.
        short_side: largest shorter side after re-encoding, px.
        key_every: frames from one key frame to the next after re-encoding.
        crf: x264's quality.
        layers: for `layered`: every so many frames there is a reference; else 0.
    """

    layout: Layout
    videos_per_shard: int = 256
    short_side: int = 256
    key_every: int = 16
    crf: int = 23
    layers: int = 0


def make_shards(
    index: Index,
    out: str,
    options: ShardOptions,
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> IndexWriter:
    """Write the shards that are not there yet, then their index.

    Args:
        index: of the source videos.
        out: folder or prefix for the shards and `index.parquet`.
        options: how they are made.
        workers: videos worked on side by side, each in a process of its own.
        progress: called with (videos done, videos in all).

    Returns:
        The closed index writer.

    Raises:
        DataError: if the options do not fit each other, `out` holds shards that were made otherwise, or storage refuses
            a video or `out`.
        StorageFault: if storage does not answer.
    """
    _check_layers(options)
    _check_options(out, index, options)
    total = -(-index.num_videos // options.videos_per_shard)
    done = _done(out)
    for number in range(total):
        first = number * options.videos_per_shard
        stop = min(first + options.videos_per_shard, index.num_videos)
        if number not in done:
            shard = _Shard(index, out, number, range(first, stop), options)
            # Children belong to the threads of a shard: in one pool for all they would gather.
            with closing(SandboxPool(limits=Limits(deadline_s=DEADLINE_S))) as pool:
                shard.write(pool, workers, lambda video: progress(video + 1, index.num_videos))
        progress(stop, index.num_videos)
    writer = IndexWriter(storage.join(out, "index.parquet"), index.uri)
    for number in range(total):
        sidecar = json.loads(storage.read(_sidecar_uri(out, number)))
        for row in sidecar["videos"]:
            writer.add({**row, "uri": storage.join(storage.absolute(out), _tar_name(number))})
        for bad in sidecar["rejected"]:
            writer.reject(Rejected(**bad))
    writer.close()
    return writer


def _tar_name(number: int) -> str:
    return f"shard-{number:06d}.tar"


def _sidecar_uri(out: str, number: int) -> str:
    return storage.join(out, f"shard-{number:06d}.json")


def _done(out: str) -> set[int]:
    """Return the numbers of the shards that are there, which their sidecars mark as done."""
    found = (_SIDECAR.search(item.uri) for item in storage.list_objects(out, missing_ok=True))
    return {int(sidecar[1]) for sidecar in found if sidecar}


def _check_layers(options: ShardOptions) -> None:
    layers, key_every = options.layers, options.key_every
    if options.layout != "layered":
        return
    if not 2 <= layers <= LARGEST_LAYERS:
        raise DataError(f"the layout layered needs a stride of 2 to {LARGEST_LAYERS} frames, got {layers}")
    if key_every % layers:
        raise DataError(
            f"key frames must lie on references: key-every={key_every} is not a multiple of the stride {layers};"
            f" use {max(1, round(key_every / layers)) * layers}"
        )


def _check_options(out: str, index: Index, options: ShardOptions) -> None:
    wanted = {**asdict(options), "fingerprint": index.fingerprint}
    uri = storage.join(out, "shards.json")
    try:
        found = {"layers": 0, **json.loads(storage.read(uri))}
    except storage.MissingError:
        storage.write(uri, json.dumps(wanted, indent=1).encode())
        return
    different = [
        f"{key}: there {found.get(key)!r}, now {value!r}" for key, value in wanted.items() if found.get(key) != value
    ]
    if different:
        raise DataError(
            f"{out} holds shards that were made otherwise; choose another place, or: " + "; ".join(different)
        )


@dataclass(frozen=True, slots=True)
class _Shard:
    """One shard to be written."""

    index: Index
    out: str
    number: int
    videos: range
    options: ShardOptions

    def write(self, pool: SandboxPool, workers: int, progress: Callable[[int], None]) -> None:
        """Write the tar, then the sidecar that marks it as done."""
        rows: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _tar_name(self.number)
            with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
                work = in_order(lambda video: _made(self.index.row(video), self.options, pool), self.videos, workers)
                for video, made in work:
                    row = self.index.row(video)
                    if isinstance(made, DecodeError):
                        rejected.append({"name": row.name, "code": made.code, "reason": made.reason})
                    else:
                        rows.append(self._add(tar, row, *made))
                    progress(video)
            storage.upload(path, storage.join(self.out, _tar_name(self.number)))
        body = json.dumps({"videos": rows, "rejected": rejected}).encode()
        storage.write(_sidecar_uri(self.out, self.number), body)

    def _add(self, tar: tarfile.TarFile, row: VideoRow, data: bytes, facts: dict[str, Any]) -> dict[str, Any]:
        """Append one member; return its row of the index, but for the shard's URI."""
        member = tarfile.TarInfo(f"{row.video_id:09d}{_suffix(row) if self.options.layout == 'as-is' else '.mp4'}")
        member.size = len(data)
        start = tar.offset + tarfile.BLOCKSIZE  # after the member's header, one block
        tar.addfile(member, io.BytesIO(data))
        kept = {"label": row.label, "layers": self.options.layers}
        return {**index_row(Candidate("", row.name, start, len(data), ""), facts, "none"), **kept}


def _suffix(row: VideoRow) -> str:
    return PurePosixPath(row.name).suffix.lower() or ".mp4"


def phase_of(row: VideoRow, layers: int) -> int:
    """Draw how many frames a layered video loses at its start, so that clips of a set start at any frame of a source.

    A clip of a layered video starts at a multiple of `layers`; without this it would do so in the source too.
    """
    if layers < 2:
        return 0
    return min(int(generator(0, Purpose.PHASE, position=row.video_id).integers(layers)), row.num_frames - 1)


def _made(row: VideoRow, options: ShardOptions, pool: SandboxPool) -> tuple[bytes, dict[str, Any]] | DecodeError:
    """Return a video's bytes in the shard and what a probe says of them.

    Raises:
        DataError: if storage refuses the video.
        StorageFault: if storage does not answer.
    """
    if options.layout == "as-is":
        try:
            data = storage.read(row.uri, row.byte_start, row.byte_start + row.num_bytes)
        except storage.MissingError as error:
            return DecodeError("storage", str(error))
    else:
        source = stored_video(row.uri, row.byte_start, row.num_bytes)
        answer = pool.one(
            transcode_job(
                source,
                short_side=options.short_side,
                key_every=options.key_every,
                crf=options.crf,
                layers=options.layers,
                phase=phase_of(row, options.layers),
            )
        )
        if isinstance(answer, DecodeError):
            return answer
        data = answer.data
    facts = probe(pool, Video(len(data), ((0, data),), lambda start, stop: data[start:stop]))
    return facts if isinstance(facts, DecodeError) else (data, facts)

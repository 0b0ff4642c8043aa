"""How a number of GPUs is fed: machines, streams, bytes, requests and their price. Arithmetic on assumptions, pure.

Every assumption is a field with its source; docs/scale.md shows what comes out. A *cell* is the ranks that one stream
serves, with a coordinator of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from system.core.plan import Cell, cells_of
from system.data.assemble import LOOKAHEAD_PER_DECODER, LOOKAHEAD_PER_RANK


@dataclass(frozen=True, slots=True)
class Assumed:
    """What is assumed of the model, the videos, the machines and the prices.

    Attributes:
        clips_per_gpu_s: that one GPU trains on. Assumed: ViT-B MAE takes about 213 GFLOP a clip, so 200 clips/s are
            43 TFLOP/s. No GPU of ours was measured.
        block_clips: of a rank's block: 2,048 clips a step over 64 ranks, as the published runs.
        clip_bytes: of frames: 16 x 224 x 224 x 3.
        video_bytes: that are read for a clip. Assumed for ten seconds at 256 px.
        views: clips of one video.
        requests_per_video: to storage; of a video up to 8 MiB it is one.
        decoded_s: clips that a decode actor makes a second, of one core: docs/benchmarks, original files, in a child.
        busy: share of its time that an actor or a coordinator is planned to work.
        coordinator_s: blocks a second that one executor sustains: docs/scale.md, measured by `jobs.scale_probe`.
        clock_s: seconds of CPU that a cell's clock spends on a block: docs/benchmarks/log.md.
        gpus_per_node: of a training machine.
        decode_node_cpus: of a decode machine: m7i.8xlarge.
        decode_node_gbit: its network, Gbit/s.
        decode_node_price: $ an hour, on demand; docs/clusters.md has the date.
        price_per_million: $ for a million reads of S3 Standard, us-east-1, list price of 2025.
        prefix_reads_s: that S3 answers for each prefix, by its documentation; more after it has scaled.
        run_clips: of the run: 800 epochs of 240,000 videos.
    """

    clips_per_gpu_s: float = 200.0
    block_clips: int = 32
    clip_bytes: int = 16 * 224 * 224 * 3
    video_bytes: int = 1_000_000
    views: int = 1
    requests_per_video: float = 1.0
    decoded_s: float = 47.9
    busy: float = 0.8
    coordinator_s: float = 50.0
    clock_s: float = 0.0048
    gpus_per_node: int = 8
    decode_node_cpus: int = 32
    decode_node_gbit: float = 12.5
    decode_node_price: float = 1.61
    price_per_million: float = 0.40
    prefix_reads_s: float = 5500.0
    run_clips: int = 800 * 240_000


@dataclass(frozen=True, slots=True)
class Feed:
    """What feeds a number of GPUs; rates are those of the whole run where nothing else is said.

    Attributes:
        gpus: one rank each.
        nodes: training machines.
        clips_s: trained on.
        blocks_s: that streams give.
        ranks_per_stream: at most, so that no coordinator works more than planned.
        cells: streams.
        cell_blocks_s: of the largest cell.
        clock: share of a core that a cell's clock takes.
        decoders: decode actors.
        decode_nodes: their machines, by cores or by network, whichever are more.
        decode_nodes_for: `cores` or `network`: what their number follows from.
        lookahead_bytes: of all blocks that are made ahead.
        store_bytes: that all streams may take of the object stores at most.
        in_gbit: frames that reach one training machine, Gbit/s.
        out_gbit: frames that leave one decode machine, Gbit/s.
        frames_s: bytes of frames between machines, a second.
        read_s: bytes read from storage, a second.
        requests_s: reads of storage, a second.
        prefixes: that so many reads need without waiting for S3 to scale.
        requests_price_h: $ an hour for reads.
        decode_price_h: $ an hour for decode machines.
        run_h: hours of the run.
        run_requests_price: $ for its reads, however many GPUs.
    """

    gpus: int
    nodes: int
    clips_s: float
    blocks_s: float
    ranks_per_stream: int
    cells: int
    cell_blocks_s: float
    clock: float
    decoders: int
    decode_nodes: int
    decode_nodes_for: str
    lookahead_bytes: int
    store_bytes: int
    in_gbit: float
    out_gbit: float
    frames_s: float
    read_s: float
    requests_s: float
    prefixes: int
    requests_price_h: float
    decode_price_h: float
    run_h: float
    run_requests_price: float


def ranks_of_a_stream(assumed: Assumed) -> int:
    """Return how many ranks one stream serves without its coordinator being busier than planned; at least one."""
    rank_blocks_s = assumed.clips_per_gpu_s / assumed.block_clips
    return max(1, int(assumed.busy * assumed.coordinator_s / rank_blocks_s))


def feed(gpus: int, assumed: Assumed) -> Feed:
    """Return what feeds a number of GPUs."""
    clips_s = gpus * assumed.clips_per_gpu_s
    blocks_s = clips_s / assumed.block_clips
    cells = cells_of(gpus, ranks_of_a_stream(assumed))
    decoders = max(len(cells), ceil(clips_s / (assumed.decoded_s * assumed.busy)))
    frames_s = clips_s * assumed.clip_bytes
    by_cores = ceil(decoders / assumed.decode_node_cpus)
    by_network = ceil(frames_s * 8 / 1e9 / (assumed.decode_node_gbit * assumed.busy))
    decode_nodes = max(by_cores, by_network)
    block_bytes = assumed.block_clips * assumed.clip_bytes
    ahead = [_lookahead(cell, decoders) for cell in cells]
    requests_s = clips_s / assumed.views * assumed.requests_per_video
    nodes = ceil(gpus / assumed.gpus_per_node)
    cell_blocks_s = cells[0].largest * assumed.clips_per_gpu_s / assumed.block_clips
    run_s = assumed.run_clips / clips_s
    return Feed(
        gpus=gpus,
        nodes=nodes,
        clips_s=clips_s,
        blocks_s=blocks_s,
        ranks_per_stream=cells[0].largest,
        cells=len(cells),
        cell_blocks_s=cell_blocks_s,
        clock=cell_blocks_s * assumed.clock_s,
        decoders=decoders,
        decode_nodes=decode_nodes,
        decode_nodes_for="network" if by_network > by_cores else "cores",
        lookahead_bytes=sum(ahead) * block_bytes,
        store_bytes=(3 * sum(ahead) + 2 * gpus) * block_bytes,
        in_gbit=frames_s / nodes * 8 / 1e9,
        out_gbit=frames_s / decode_nodes * 8 / 1e9,
        frames_s=frames_s,
        read_s=clips_s / assumed.views * assumed.video_bytes,
        requests_s=requests_s,
        prefixes=ceil(requests_s / assumed.prefix_reads_s),
        requests_price_h=3600 * requests_s / 1e6 * assumed.price_per_million,
        decode_price_h=decode_nodes * assumed.decode_node_price,
        run_h=run_s / 3600,
        run_requests_price=run_s * requests_s / 1e6 * assumed.price_per_million,
    )


def _lookahead(cell: Cell, decoders: int) -> int:
    """Return how many blocks of a cell are made ahead, as the default of `data.lookahead` is."""
    return max(LOOKAHEAD_PER_RANK * cell.size, LOOKAHEAD_PER_DECODER * cell.share(decoders))


ROWS = (
    ("training machines", "{0.nodes}"),
    ("clips/s", "{0.clips_s:,.0f}"),
    ("blocks/s", "{0.blocks_s:,.1f}"),
    ("ranks of a stream", "{0.ranks_per_stream}"),
    ("streams (cells)", "{0.cells}"),
    ("blocks/s of a stream", "{0.cell_blocks_s:.1f}"),
    ("a cell's clock, share of a core", "{0.clock:.0%}"),
    ("decode actors", "{0.decoders:,}"),
    ("decode machines", "{0.decode_nodes:,}"),
    ("as many for their", "{0.decode_nodes_for}"),
    ("object store: made ahead", "{1}"),
    ("object store: at most", "{2}"),
    ("frames into a training machine, Gbit/s", "{0.in_gbit:.1f}"),
    ("frames out of a decode machine, Gbit/s", "{0.out_gbit:.1f}"),
    ("frames between machines", "{3}/s"),
    ("read from storage", "{4}/s"),
    ("reads of storage/s", "{0.requests_s:,.0f}"),
    ("prefixes for them", "{0.prefixes}"),
    ("$/h: reads", "{0.requests_price_h:,.2f}"),
    ("$/h: decode machines", "{0.decode_price_h:,.2f}"),
    ("the run, hours", "{0.run_h:,.1f}"),
    ("the run's reads, $", "{0.run_requests_price:,.0f}"),
)


def bytes_told(count: float) -> str:
    """Write bytes as a person would."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def feeding_table(found: Sequence[Feed]) -> str:
    """Return feeds side by side, one line for each figure."""
    rows = [("GPUs", *(f"{each.gpus:,}" for each in found))]
    for name, shape in ROWS:
        told = [
            (each, *map(bytes_told, (each.lookahead_bytes, each.store_bytes, each.frames_s, each.read_s)))
            for each in found
        ]
        rows.append((name, *(shape.format(*each) for each in told)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [f"{row[0]:{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )

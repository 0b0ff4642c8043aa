"""Features of videos on a cluster: numbers of blocks -> read -> decode -> encode, as one chain of Ray Data calls.

No order is kept and no gate held: the set is finite, whoever takes the rows sorts them into parts, and Ray's
back-pressure counts frames. A task that fails is tried again by Ray Data, and its rows come once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, DataContext

from system.data.columns import Batch
from system.data.index import Index
from system.data.viewing import ViewDecoder, ViewReader
from system.errors import ClusterError
from system.evaluate.extract import blocks_of
from system.evaluate.frozen import Extraction, Featurizer, load_network
from system.section import fewest, most

if TYPE_CHECKING:
    from ray.data import Dataset

# Numbers of blocks in a block of the source.
CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Encoders:
    """The actors that hold a network.

    Attributes:
        count: of them.
        gpus: share of a GPU of each; 0: `cpus` cores.
        cpus: cores of each without a GPU.
    """

    count: int
    gpus: float = 0.0
    cpus: int = 1


class _Read:
    def __init__(self, work: Extraction, index_uri: str, blocks: list[NDArray[np.int64]]) -> None:
        self._blocks, self._stage = blocks, ViewReader(Index(index_uri), work.spec)

    def __call__(self, batch: Batch) -> Batch:
        (block,) = batch["id"].tolist()
        return self._stage({"video_id": self._blocks[block]})


class _Decode:
    def __init__(self, work: Extraction, index_uri: str) -> None:
        self._stage = ViewDecoder(Index(index_uri), work.spec)
        self._stage.start()

    def __call__(self, batch: Batch) -> Batch:
        return self._stage(batch)


class _Encode:
    def __init__(self, work: Extraction, encoders: Encoders) -> None:
        import torch  # noqa: PLC0415  where there is a network

        if not encoders.gpus:
            torch.set_num_threads(encoders.cpus)
        self._stage = Featurizer(work, load_network(work), "cuda" if encoders.gpus else "cpu")

    def __call__(self, batch: Batch) -> Batch:
        return self._stage(batch)


def check_room(work: Extraction, encoders: Encoders) -> None:
    """Refuse actors that would wait for cores or GPUs for good.

    Raises:
        ClusterError: if the cluster has too little.
    """
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus = fewest(work.recipe.resources.decode_actors) + (0 if encoders.gpus else encoders.cpus)
    # One core for the tasks that hand out numbers.
    if have.get("CPU", 0) < cpus + 1 or have.get("GPU", 0) < encoders.gpus:
        raise ClusterError(
            f"{cpus + 1} CPUs and {encoders.gpus:g} GPUs are wanted at least, the cluster has"
            f" {have.get('CPU', 0):g} and {have.get('GPU', 0):g}; lower resources.decode_actors or --actors"
        )


def feature_rows(work: Extraction, index_uri: str, ids: NDArray[np.int64], encoders: Encoders) -> Iterator[Batch]:
    """Yield the features of videos, a block at a time, in any order.

    Raises:
        ClusterError: if the cluster has no room for the actors.
    """
    check_room(work, encoders)
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # that bars are off, and where its log lies
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    stream = _stream(work, index_uri, blocks_of(work, ids), encoders)
    for batch in stream.iter_batches(batch_size=None, prefetch_batches=1):
        yield {name: np.asarray(values) for name, values in batch.items()}


def _stream(work: Extraction, index_uri: str, blocks: list[NDArray[np.int64]], encoders: Encoders) -> Dataset:
    resources = work.recipe.resources
    decoders = resources.decode_actors
    numbers = ray.data.range(len(blocks), override_num_blocks=-(-len(blocks) // CHUNK))
    stream = numbers.repartition(target_num_rows_per_block=1).map_batches(
        _Read,
        fn_constructor_args=(work, index_uri, blocks),
        batch_size=1,
        compute=ActorPoolStrategy(size=resources.read_actors),
        num_cpus=0,
    )
    stream = stream.map_batches(
        _Decode,
        fn_constructor_args=(work, index_uri),
        batch_size=None,
        compute=ActorPoolStrategy(min_size=fewest(decoders), max_size=most(decoders)),
        num_cpus=1,
        resources=resources.decode_resources or None,
    )
    made: Dataset = stream.map_batches(
        _Encode,
        fn_constructor_args=(work, encoders),
        batch_size=None,
        compute=ActorPoolStrategy(min_size=1, max_size=encoders.count),
        num_cpus=0 if encoders.gpus else encoders.cpus,
        num_gpus=encoders.gpus or None,
    )
    return made

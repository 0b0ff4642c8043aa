"""How GPUs are fed: arithmetic that a person can repeat."""

from __future__ import annotations

from dataclasses import replace

import pytest

from system.benchmark.feeding import Assumed, bytes_told, feed, feeding_table, ranks_of_a_stream

PLAIN = Assumed(
    clips_per_gpu_s=100.0,
    block_clips=10,
    clip_bytes=1_000_000,
    video_bytes=500_000,
    decoded_s=50.0,
    busy=0.5,
    coordinator_s=80.0,
    clock_s=0.005,
    gpus_per_node=8,
    decode_node_cpus=10,
    decode_node_gbit=1000.0,
    decode_node_price=2.0,
    price_per_million=0.5,
    prefix_reads_s=1000.0,
    run_clips=3_600_000,
)


def test_a_machine_of_eight_is_fed_as_a_person_reckons() -> None:
    found = feed(8, PLAIN)
    assert (found.clips_s, found.blocks_s) == (800, 80)
    # A rank takes 10 blocks/s; half of 80 are 4 ranks.
    assert (found.ranks_per_stream, found.cells, found.cell_blocks_s) == (4, 2, 40)
    assert found.clock == pytest.approx(0.2)
    # 800 clips/s by actors that are to make 25 each.
    assert (found.decoders, found.decode_nodes, found.decode_price_h) == (32, 4, 8.0)
    # 3 blocks of 10 MB for each decoder; three times that and 2 for each rank at most.
    assert (found.lookahead_bytes, found.store_bytes) == (96 * 10**7, (3 * 96 + 16) * 10**7)
    assert found.in_gbit == pytest.approx(6.4)
    assert found.out_gbit == pytest.approx(1.6)
    assert (found.frames_s, found.read_s) == (8e8, 4e8)
    assert (found.requests_s, found.prefixes) == (800, 1)
    assert found.requests_price_h == pytest.approx(800 * 3600 / 1e6 * 0.5)
    assert found.run_h == pytest.approx(3_600_000 / 800 / 3600)
    assert found.run_requests_price == pytest.approx(3.6 * 0.5)


def test_rates_and_machines_grow_with_the_gpus_and_a_streams_share_does_not() -> None:
    few, many = feed(64, Assumed()), feed(4096, Assumed())
    for name in ("nodes", "clips_s", "blocks_s", "frames_s", "read_s", "requests_s", "requests_price_h"):
        assert getattr(many, name) == pytest.approx(64 * getattr(few, name))
    assert many.decode_nodes <= 64 * few.decode_nodes
    assert many.ranks_per_stream == few.ranks_per_stream <= ranks_of_a_stream(Assumed())
    assert many.cells * many.ranks_per_stream >= 4096
    assert many.run_requests_price == pytest.approx(few.run_requests_price)


def test_no_coordinator_is_busier_than_planned_and_one_rank_has_a_stream_whatever_it_takes() -> None:
    for clips in (20.0, 200.0, 800.0):
        assumed = Assumed(clips_per_gpu_s=clips)
        assert feed(64, assumed).cell_blocks_s <= assumed.busy * assumed.coordinator_s
    assert ranks_of_a_stream(Assumed(clips_per_gpu_s=1e6)) == 1


def test_views_of_one_video_share_its_bytes_and_its_request() -> None:
    one, four = feed(64, Assumed()), feed(64, Assumed(views=4))
    assert four.requests_s == one.requests_s / 4
    assert four.read_s == one.read_s / 4
    assert four.frames_s == one.frames_s


def test_a_slow_network_asks_for_more_decode_machines_than_cores_do() -> None:
    slow = replace(PLAIN, decode_node_gbit=1.0)
    assert feed(8, PLAIN).decode_nodes_for == "cores"
    found = feed(8, slow)
    assert found.decode_nodes_for == "network"
    assert found.decode_nodes > feed(8, PLAIN).decode_nodes
    assert found.out_gbit <= slow.decode_node_gbit * slow.busy


def test_the_table_has_a_column_for_each_number_of_gpus() -> None:
    lines = feeding_table([feed(gpus, Assumed()) for gpus in (8, 4096)]).splitlines()
    assert lines[0].split() == ["GPUs", "8", "4,096"]
    (price,) = [line for line in lines if line.startswith("$/h: reads")]
    assert price.split()[-2:] == ["2.30", "1,179.65"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(("count", "told"), [(12, "12 B"), (2.5e6, "2.5 MB"), (7.7e9, "7.7 GB"), (2e12, "2.0 TB")])
def test_bytes_are_written_as_a_person_would(count: float, told: str) -> None:
    assert bytes_told(count) == told

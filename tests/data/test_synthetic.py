"""Generated videos: the same from the same seed, and their true flow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from system.data.synthetic import MOTIONS, moving_scene, moving_video


def test_the_same_seed_makes_the_same_bytes() -> None:
    assert moving_video(1, 2, size=(48, 48), num_frames=8) == moving_video(1, 2, size=(48, 48), num_frames=8)
    assert moving_video(1, 2, size=(48, 48), num_frames=8) != moving_video(2, 2, size=(48, 48), num_frames=8)


def test_videos_that_are_encoded_beside_others_have_the_same_bytes() -> None:
    kinds = [(index, size) for index in range(6) for size in ((48, 48), (64, 96), (128, 160))] * 15
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda kind: moving_video(0, kind[0], size=kind[1], num_frames=12)[1], kinds))
    found = {kind: {data for each, data in zip(kinds, made, strict=True) if each == kind} for kind in kinds}
    assert {len(each) for each in found.values()} == {1}


def test_the_true_flow_takes_a_pixel_to_where_it_is_seen_again() -> None:
    for label in MOTIONS:
        scene = moving_scene(0, 4, size=(96, 96), num_frames=16, label=label)
        forward, first, second = scene.flow(4, 8), scene.frame(4).astype(float), scene.frame(8).astype(float)
        errors = []
        for y in range(8, 88, 4):
            for x in range(8, 88, 4):
                to = (forward[y, x] + [x, y]).round().astype(int)
                if (to >= 0).all() and (to < 96).all():
                    errors.append(abs(second[to[1], to[0]] - first[y, x]).mean())
        assert sorted(errors)[len(errors) // 2] < 6, label


def test_flow_there_and_back_cancels_out_where_nothing_covers() -> None:
    scene = moving_scene(0, 1, size=(64, 64), num_frames=16, label="pan")
    there, back = scene.flow(3, 9), scene.flow(9, 3)
    to = (there[32, 32] + 32).round().astype(int)
    assert abs(there[32, 32] + back[to[1], to[0]]).max() < 0.1

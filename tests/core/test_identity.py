from __future__ import annotations

import numpy as np

from system.core.identity import SAMPLED, clip_identities, equal_share, sample_places, sampled_bits, total, with_content

STEP, CLIPS, TOKENS = 7, 12, 8


def masks() -> np.ndarray:
    return np.random.default_rng(0).random((CLIPS, TOKENS)) < 0.5


def test_identities_add_up_in_any_order_and_every_part_of_a_clip_counts() -> None:
    parts = np.random.default_rng(0).integers(0, 1000, (4, 50))
    whole = clip_identities(*parts)
    shuffled = clip_identities(*parts[:, ::-1])
    assert total(whole) == total(shuffled) == (total(whole[:20]) + total(whole[20:])) % 2**64
    for part in range(4):
        changed = parts.copy()
        changed[part, 3] += 1
        assert np.flatnonzero(clip_identities(*changed) != whole).tolist() == [3]


def test_two_clips_that_exchanged_their_pixels_are_noticed() -> None:
    clips = clip_identities(*np.arange(8).reshape(4, 2))
    pixels = np.array([5, 6], np.uint32)
    assert total(with_content(clips, pixels)) != total(with_content(clips, pixels[::-1]))


def test_the_sampled_bits_of_ranks_add_up_to_those_of_the_step() -> None:
    visible, order = masks(), np.random.default_rng(1).permutation(CLIPS)
    whole = sampled_bits(STEP, CLIPS, np.arange(CLIPS), visible)
    parts = [sampled_bits(STEP, CLIPS, order[part::3], visible[order[part::3]]) for part in range(3)]
    assert sum(parts, np.zeros(4, np.uint64)).tolist() == whole.tolist()
    clip, token = sample_places(STEP, CLIPS, TOKENS)
    bit = 100
    assert bool(int(whole[bit // 64]) >> bit % 64 & 1) == visible[clip[bit], token[bit]]


def test_the_share_of_equal_tokens_leaves_skipped_clips_out() -> None:
    visible = masks()
    kept = np.arange(1, CLIPS)
    ours = sampled_bits(STEP, CLIPS, kept, visible[kept])
    assert equal_share(ours, ours, STEP, CLIPS, kept, TOKENS) == 1
    theirs = sampled_bits(STEP, CLIPS, np.arange(CLIPS), np.where(np.arange(CLIPS)[:, None] == 0, True, visible))
    assert equal_share(ours, theirs, STEP, CLIPS, kept, TOKENS) == 1
    flipped = sampled_bits(STEP, CLIPS, kept, ~visible[kept])
    assert equal_share(ours, flipped, STEP, CLIPS, kept, TOKENS) == 0
    assert len(sample_places(STEP, CLIPS, TOKENS)[0]) == SAMPLED
    assert np.isnan(equal_share(ours, ours, STEP, CLIPS, np.array([], np.int64), TOKENS))

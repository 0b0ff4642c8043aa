from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from system.core.seeds import Purpose, first_draws, generator


def test_the_same_place_gives_the_same_numbers() -> None:
    first, second = (generator(1, Purpose.MASK, 2, 3, 4).random(5) for _ in range(2))
    assert (first == second).all()


def test_no_two_places_share_numbers() -> None:
    places = list(product((0, 1), (Purpose.START, Purpose.MASK), (0, 1), (0, 1, 2), (0, 1)))
    drawn = {generator(*place).random() for place in places}
    assert len(drawn) == len(places)


def test_the_numbers_are_what_they_were() -> None:
    """Samples are a function of these: they may never change between versions."""
    assert generator(0, Purpose.START, 1, 2, 3).integers(1 << 32, size=3).tolist() == GOLDEN


# Made by the line above in the project's first version.
GOLDEN = [249788268, 3274260451, 1807956879]


@pytest.mark.parametrize(("seed", "part"), [(0, 0), (2**63 - 1, 3)])
def test_many_places_at_once_give_the_numbers_that_each_gives_alone(seed: int, part: int) -> None:
    epochs = np.array([0, 0, 1, 800, 2**40], np.uint64)
    positions = np.array([0, 1, 239_999, 10_000_000, 2**63], np.uint64)
    alone = [
        generator(seed, Purpose.START, int(epoch), int(position), part).random()
        for epoch, position in zip(epochs, positions, strict=True)
    ]
    assert first_draws(seed, Purpose.START, epochs, positions, part).tolist() == alone

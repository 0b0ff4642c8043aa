from __future__ import annotations

from itertools import product

from system.core.seeds import Purpose, generator


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

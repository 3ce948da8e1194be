"""Halving finds exactly the bad items, tries the good ones together, and keeps their order."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.halving import Halves


def _written(items: Sequence[int], bad: set[int]) -> tuple[list[list[int]], list[int]]:
    """The parts that were written, and the items that were found bad."""
    written: list[list[int]] = []
    found: list[int] = []
    parts = Halves(items)
    for part in parts:
        if bad.isdisjoint(part):
            written.append(list(part))
        elif not parts.split(part):
            found.append(part[0])
    return written, found


def test_no_items_are_not_tried() -> None:
    assert _written([], set()) == ([], [])


def test_good_items_are_written_together() -> None:
    assert _written(range(7), set()) == ([list(range(7))], [])


def test_a_bad_item_is_found_and_the_others_stay_in_order() -> None:
    assert _written(range(8), {5}) == ([[0, 1, 2, 3], [4], [6, 7]], [5])


@given(st.integers(0, 60), st.sets(st.integers(0, 59)))
def test_every_item_is_written_once_or_found_bad(size: int, bad: set[int]) -> None:
    written, found = _written(range(size), bad)
    assert [item for part in written for item in part] == [item for item in range(size) if item not in bad]
    assert found == [item for item in range(size) if item in bad]

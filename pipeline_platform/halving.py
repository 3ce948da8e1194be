"""Finds the bad items of a sequence that is written as a whole. A part that fails is halved, down to single items.

The caller tries each part and decides which errors mean bad items. This works in threads and on the event loop alike.
"""

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Halves(Generic[T]):
    """The parts to try, in the order of the items: first all items, then the halves of each part that was split.

    for part in parts:
        try:
            ...  # in a savepoint
        except BadDataError:
            if not parts.split(part):
                ...  # part[0] is bad
    """

    def __init__(self, items: Sequence[T]) -> None:
        self._parts = [items] if items else []

    def __iter__(self) -> Iterator[Sequence[T]]:
        while self._parts:
            yield self._parts.pop()

    def split(self, part: Sequence[T]) -> bool:
        """Let both halves of the part that was tried last come next. False if it is a single item."""
        if len(part) == 1:
            return False
        middle = len(part) // 2
        self._parts += [part[middle:], part[:middle]]
        return True

"""Workers at their places: who waits to try a failed call again makes room for somebody who can work."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["CREW", "Crew"]


class Crew:
    """Keeps a number of workers at work, not counting those who wait.

    A fixed concurrency is meant for the endpoint's sake. An episode that waits for a second because a call
    was refused asks nothing of the endpoint; were its place kept, refusals would slow down the others, too.

    Args:
        size: workers at work at a time.
        most: workers in all, those who wait included; bounds memory when an endpoint refuses everything.
        hire: starts one more worker.
    """

    def __init__(self, size: int, most: int, hire: Callable[[], None]) -> None:
        self._size, self._most, self._hire = size, most, hire
        self._members = self._away = 0
        self._closed = False

    def fill(self) -> None:
        """Hire for the free places."""
        while not self._closed and self._members - self._away < self._size and self._members < self._most:
            self._members += 1
            self._hire()

    def leave(self, *, finished: bool) -> None:
        """A worker goes.

        Args:
            finished: because there is no work left, or it failed: nobody is hired any more.
        """
        self._members -= 1
        self._closed = self._closed or finished

    @property
    def too_many(self) -> bool:
        """Whether a worker who is done with a piece of work should go, since others came back."""
        return self._members - self._away > self._size

    @contextmanager
    def away(self) -> Generator[None]:
        """Wait here: the place is free meanwhile."""
        self._away += 1
        try:
            self.fill()
            yield
        finally:
            self._away -= 1


CREW: ContextVar[Crew | None] = ContextVar("reflexion_crew", default=None)
"""The crew the running code works in."""

"""The order of a batch, which decides between two items that would write one path."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class RequestOrder:
    """The order of the requests of a batch, by which a path belongs to the earliest of them.

    The fetches of a batch run at the same time, and their paths are known only when connectors
    begin to write. So an earlier request takes a path from a later one even when that has begun
    to write, or is done: nothing depends on which is faster.

    Args:
        owners: The owner of each request, as `Workspace` takes it, in the order of the requests.
    """

    def __init__(self, owners: Iterable[str] = ()) -> None:
        self._positions: dict[str, int] = {}
        for position, owner in enumerate(owners):
            self._positions.setdefault(owner, position)  # the same item twice: the earlier counts
        self.lock = threading.RLock()
        """Held while a path changes its owner, and while an owner puts its file in place."""

    def precedes(self, owner: str, other: str) -> bool:
        """Return True if the request of `owner` is before that of `other`."""
        last = len(self._positions)
        return self._positions.get(owner, last) < self._positions.get(other, last)

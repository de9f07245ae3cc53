"""Keep the connections of a whole cluster to one source within the size of its pool.

Each process has a pool of its own, so the cluster counts: `distributed` keeps semaphores on the
scheduler. A holder of a lease of the first semaphore has one connection at most, and closes it before
the lease is released. The second semaphore leaves one lease of the first to readers: plans that hold
all of them would wait for their readers for ever. The scheduler takes back the lease of a process
that was killed, after `distributed.scheduler.locks.lease-timeout`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from distributed import Client, Semaphore

from datasources import OptionError, PoolTimeoutError


@dataclass(frozen=True, slots=True)
class Slots:
    """The connections to a source that all processes of a cluster may have."""

    source_id: str
    max_size: int
    """Connections at once; those to one source must name the same number everywhere."""

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait in a task until the cluster may have one more connection, for a block."""
        with Semaphore(self.max_size, self._name("connections")):
            yield

    @contextmanager
    def hold_for_plan(self, client: Client, timeout: float) -> Iterator[None]:
        """Wait until the cluster may have one more plan, for a block.

        Raises:
            OptionError: There is no connection for readers beside that of the plan.
            PoolTimeoutError: Other plans and readers had all connections for `timeout` seconds.
        """
        if self.max_size < 2:
            raise OptionError(
                f"source {self.source_id!r} may have one connection, which the plan takes; a cluster "
                "reads with a 'max_size' of the pool of at least 2"
            )
        with (
            self._leased(client, self.max_size - 1, "plans", timeout),
            self._leased(client, self.max_size, "connections", timeout),
        ):
            yield

    @contextmanager
    def _leased(self, client: Client, size: int, name: str, timeout: float) -> Iterator[None]:
        semaphore = Semaphore(size, self._name(name), client.scheduler, client.loop)
        semaphore.register()
        if not semaphore.acquire(timeout):
            raise PoolTimeoutError(
                f"the cluster had all {self.max_size} connections to source {self.source_id!r} in use "
                f"for {timeout:g} seconds, with at most {self.max_size - 1} plans"
            )
        try:
            yield
        finally:
            semaphore.release()

    def _name(self, name: str) -> str:
        return f"datasources-{name}-{self.max_size}-{self.source_id}"

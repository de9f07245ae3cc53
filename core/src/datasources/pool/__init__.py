"""Connection pools: connections that tasks share, bounded in number, reused and replaced."""

from datasources.pool.calls import (
    CANCEL_GRACE as CANCEL_GRACE,
    DISCONNECT_TIMEOUT as DISCONNECT_TIMEOUT,
    ConnectorFactory as ConnectorFactory,
    DeadlineExceededError as DeadlineExceededError,
    PooledConnection as PooledConnection,
    PoolStatistics as PoolStatistics,
    run_with_deadline as run_with_deadline,
)
from datasources.pool.pool import (
    CLOSE_TIMEOUT as CLOSE_TIMEOUT,
    ConnectionPool as ConnectionPool,
    ConnectionPoolManager as ConnectionPoolManager,
)

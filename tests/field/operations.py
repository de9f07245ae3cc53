"""Every operation of the PostgreSQL connector, on a table of 100 rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from datasources import Workspace
from datasources_postgresql import PostgreSQLConnector

TABLE = "orders"
QUERY = "SELECT customer, sum(amount) AS total FROM orders GROUP BY customer ORDER BY customer"
SMALL_TABLE = """
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL UNIQUE);
INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 10) n;
CREATE TABLE orders (
    id int PRIMARY KEY, customer int NOT NULL REFERENCES customers, amount numeric(12, 2),
    placed timestamptz NOT NULL, note text, CHECK (amount >= 0)
);
CREATE INDEX ON orders (placed);
INSERT INTO orders SELECT n, 1 + n % 10, n * 1.5, timestamptz '2024-01-01' + n * interval '1 h',
    'note ' || n FROM generate_series(1, 100) n;
CREATE VIEW recent AS
    SELECT orders.id, customers.name, amount FROM orders JOIN customers ON customer = customers.id
    ORDER BY placed DESC LIMIT 50;
ANALYZE customers, orders;
"""

Operation = Callable[[PostgreSQLConnector, Workspace], Awaitable[Any]]

OPERATIONS: dict[str, Operation] = {
    "test_connection": lambda c, w: c.test_connection(),
    "list_items": lambda c, w: c.list_items(),
    "list_items of a schema": lambda c, w: c.list_items("public"),
    "glob_items": lambda c, w: c.glob_items("public.*"),
    "get_metadata": lambda c, w: c.get_metadata(TABLE),
    "get_metadata, exact rows": lambda c, w: c.get_metadata(TABLE, exact_rows=True),
    "get_metadata of a view": lambda c, w: c.get_metadata("recent"),
    "get_metadata of a query": lambda c, w: c.get_metadata(QUERY),
    "preview": lambda c, w: c.preview(TABLE),
    "preview of a view": lambda c, w: c.preview("recent"),
    "preview of a query": lambda c, w: c.preview(QUERY),
    "statistics": lambda c, w: c.statistics(TABLE),
    "statistics of a query": lambda c, w: c.statistics(QUERY),
    "fetch_data": lambda c, w: c.fetch_data(TABLE, w),
    "fetch_data of a view": lambda c, w: c.fetch_data("recent", w),
    "fetch_data of a query": lambda c, w: c.fetch_data(QUERY, w),
    "fetch_data, Parquet": lambda c, w: c.fetch_data(TABLE, Workspace(w, file_format="parquet")),
    "read_table": lambda c, w: c.read_table(TABLE),
}

"""The contents of the demo's sources."""

from __future__ import annotations

import secrets
from contextlib import closing
from pathlib import Path

import psycopg
from azure.storage.blob import BlobServiceClient
from psycopg import sql

from tests.servers import PostgresServer
from tests.servers.s3 import S3Server

TABLES = """
CREATE TABLE customers (
    id integer PRIMARY KEY,
    name text NOT NULL,
    country text NOT NULL,
    since date NOT NULL
);
COMMENT ON TABLE customers IS 'Everybody who ever bought something';
CREATE TABLE orders (
    id bigint PRIMARY KEY,
    customer_id integer NOT NULL REFERENCES customers,
    placed_at timestamptz NOT NULL,
    amount numeric(8,2) NOT NULL CHECK (amount > 0),
    note text
);
CREATE VIEW revenue AS
    SELECT country, sum(amount) AS amount
    FROM orders JOIN customers ON customers.id = customer_id GROUP BY country;
INSERT INTO customers SELECT i, 'Customer ' || i, (ARRAY['DE','FR','IN','JP','US'])[i % 5 + 1],
    date '2020-01-01' + i FROM generate_series(1, 500) i;
INSERT INTO orders SELECT i, i % 500 + 1, timestamptz '2026-01-01' + i * interval '1 hour',
    (i * 37 % 100000) / 100.0 + 0.01, CASE WHEN i % 7 = 0 THEN 'gift, wrapped' END
    FROM generate_series(1, 5000) i;
ANALYZE;
"""
BLOBS = {
    f"reports/{year}/q{quarter}.csv": "region,units\n"
    + "".join(f"{region},{year % 100 * quarter}\n" for region in ("north", "south", "east", "west"))
    for year in (2025, 2026)
    for quarter in (1, 2)
} | {"images/logo.png": "\x89PNG\r\n\x1a\n" + "\0" * 64}
OBJECTS = {
    f"2026/0{month}.jsonl": "".join(
        f'{{"day": {day}, "visits": {month * day}}}\n' for day in range(1, 6)
    )
    for month in (1, 2, 3)
}
FILES = {
    "notes/todo.txt": "look at orders\nask about refunds\n",
    "prices.csv": "sku,price\n1,9.5\n",
}


def fill_database(server: PostgresServer) -> str:
    """Make the database `shop` and a user `analyst` who may read it; return the password."""
    password = secrets.token_urlsafe(12)
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE shop")
        connection.execute(
            sql.SQL("CREATE ROLE analyst LOGIN PASSWORD {}").format(sql.Literal(password))
        )
    with psycopg.connect(server.dsn("shop"), autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO analyst")
    return password


def fill_blobs(connection_string: str) -> None:
    """Make the container `lake`."""
    with BlobServiceClient.from_connection_string(connection_string) as service:
        container = service.create_container("lake")
        for name, content in BLOBS.items():
            container.upload_blob(name, content.encode("latin-1"))


def fill_bucket(server: S3Server) -> None:
    """Make the bucket `visits`."""
    with closing(server.client()) as client:
        client.create_bucket(Bucket="visits")
        for name, content in OBJECTS.items():
            client.put_object(Bucket="visits", Key=name, Body=content.encode())


def fill_directory(directory: Path) -> None:
    """Write the example files."""
    for name, content in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)

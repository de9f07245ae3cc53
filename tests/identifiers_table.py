"""The table of identifiers that grants allow and refuse, for every way into a source.

Each way in (library, sessions, command line) runs the same rows. A row has the grant as
rights and items, and what becomes of the identifier:

- `allowed`: the connector is asked; it may have no such item
- `right`: a right is missing
- `item`: the item is outside the patterns of the grant
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One identifier of a connector type under one grant."""

    type: str
    identifier: str
    rights: tuple[str, ...]
    items: tuple[str, ...]
    becomes: str

    def __str__(self) -> str:
        items = ",".join(self.items) or "all"
        return f"{self.type}-{self.identifier!r}-{'+'.join(self.rights)}-{items}"


READ = ("read",)
QUERY = ("query",)
BOTH = ("read", "query")


def rows(
    type_: str, rights: tuple[str, ...], items: tuple[str, ...], **lists: list[str]
) -> list[Row]:
    return [
        Row(type_, identifier, rights, items, becomes)
        for becomes, identifiers in lists.items()
        for identifier in identifiers
    ]


QUERIES = [
    "select * from public.orders",
    "SELECT 1",
    "table orders",
    "with a as (select 1) select * from a",
    "values (1)",
    "show all",
    "public.orders; select 1",
    "public.orders --",
    "public . orders/**/",
    "public.orders.id",
    "a.b.c.d",
    "orders()",
    "public.orders\0",
    "",
    " ",
    "1",
    "'orders'",
    "delete from orders",
    "\ud800",
    '"unclosed',
    '""',
]
POSTGRESQL = [
    *rows(
        "postgresql", READ, (), allowed=["public.orders", "orders", '"Odd"."Name"'], right=QUERIES
    ),
    *rows("postgresql", BOTH, (), allowed=["public.orders", *QUERIES]),
    *rows("postgresql", QUERY, (), allowed=QUERIES, right=["public.orders", "orders"]),
    *rows("postgresql", ("write",), (), right=["public.orders", "SELECT 1"]),
    *rows(
        "postgresql",
        READ,
        ("public.*",),
        allowed=[
            "public.orders",
            "PUBLIC.Orders",
            ' public . "orders" ',
            '"public".orders',
            "public.user",
            'public."With space"',
            'public."größe"',
        ],
        item=[
            "orders",
            "hr.salaries",
            '"public.x".orders',
            '"PUBLIC".orders',
            "publicx.orders",
            'public."a/b"',
            "public.größe",
            "pg_catalog.pg_authid",
        ],
        right=QUERIES,
    ),
    *rows("postgresql", READ, ('public."user"',), allowed=["public.user"], item=["public.users"]),
]
AZURE = [
    *rows("azure_blob", READ, (), allowed=["a.csv", "in/a.csv", "select 1", "../x", "a\\b", ""]),
    *rows(
        "azure_blob",
        READ,
        ("in/**",),
        allowed=["in/a.csv", "in/deep/a.csv"],
        item=[
            "a.csv",
            "in",
            "In/a.csv",
            "out/in/a.csv",
            "/in/a.csv",
            "in\\a.csv",
            "in/..\\out\\a.csv",
            "?snapshot=2026-01-01T00:00:00.0000000Z/in/a.csv",
            "?versionid=2026-01-01T00:00:00.0000000Z/out/a.csv",
        ],
    ),
    *rows("azure_blob", QUERY, (), right=["a.csv"]),
]
S3 = [
    *rows("s3", READ, (), allowed=["a.csv", "in/a.csv", "select 1", "../x", "a\\b", ""]),
    *rows(
        "s3",
        READ,
        ("in/**",),
        allowed=["in/a.csv", "in/deep/a.csv"],
        item=[
            "a.csv",
            "in",
            "In/a.csv",
            "/in/a.csv",
            "in\\a.csv",
            "in/..\\out\\a.csv",
            "?versionid=1/in/a.csv",
        ],
    ),
    *rows("s3", QUERY, (), right=["a.csv"]),
]
GCS = [
    *rows("gcs", READ, (), allowed=["a.csv", "in/a.csv", "select 1", "../x", "a\\b", ""]),
    *rows(
        "gcs",
        READ,
        ("in/**",),
        allowed=["in/a.csv", "in/deep/a.csv", "in/../a.csv"],
        item=["a.csv", "In/a.csv", "/in/a.csv", "?generation=1/in/a.csv"],
    ),
    *rows("gcs", QUERY, (), right=["a.csv"]),
]
HTTP_FILES = [
    *rows("http_files", READ, (), allowed=["a.csv", "select 1"]),
    *rows(
        "http_files",
        READ,
        ("in/**",),
        allowed=["in/a.csv"],
        item=["in/../a.csv", "in//a", "in\\..\\a", "/in/a", "a", ""],
    ),
    *rows("http_files", QUERY, (), right=["a.csv"]),
]
LOCAL = [
    *rows("local_file", READ, (), allowed=["a.csv", "in/a.csv", "select 1", "../x", "\ud800"]),
    *rows(
        "local_file",
        READ,
        ("in/*.csv",),
        allowed=["in/a.csv"],
        item=[
            "a.csv",
            "in/deep/a.csv",
            "in/../a.csv",
            "in//a.csv",
            "./in/a.csv",
            "in/a.csv/",
            "/in/a.csv",
            "in/a.csv\0",
            "",
        ],
    ),
    *rows("local_file", QUERY, (), right=["a.csv"]),
]
SQLITE = [
    *rows(
        "sqlite",
        READ,
        (),
        allowed=["orders", "order by"],
        right=["select 1", "\n WITH a", "values(1)"],
    ),
    *rows("sqlite", BOTH, (), allowed=["orders", "select 1"]),
    *rows(
        "sqlite", READ, ("or*",), allowed=["orders"], item=["people", "Orders"], right=["select 1"]
    ),
]
UNCLASSIFIED = [
    *rows("shelf", READ, (), right=["a.csv", "select 1"]),
    *rows("shelf", READ, ("a*",), right=["a.csv"]),
    *rows("shelf", QUERY, (), allowed=["a.csv", "select 1"]),
    *rows("shelf", BOTH, (), allowed=["a.csv", "select 1"]),
]
TABLE = [*POSTGRESQL, *AZURE, *S3, *GCS, *HTTP_FILES, *LOCAL, *SQLITE, *UNCLASSIFIED]

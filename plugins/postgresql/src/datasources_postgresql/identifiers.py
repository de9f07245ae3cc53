"""Tell the name of a table from a query, and fold names as PostgreSQL does."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_IDENTIFIER = r'(?:[^\W\d][\w$]*|"(?:[^"\0]|"")+")'
_TABLE = re.compile(rf"\s*({_IDENTIFIER})(?:\s*\.\s*({_IDENTIFIER}))?\s*")
_SURROGATE = re.compile("[\ud800-\udfff]")  # has no UTF-8, so a server cannot receive it
_UPPER = re.compile(r"[A-Z]")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")  # a name that `quote_ident` leaves alone, if no keyword
# The keywords that `quote_ident` of PostgreSQL 18 quotes: `SELECT word FROM pg_get_keywords() WHERE
# catcode <> 'U'`. An older server quotes fewer; its path of such a table is then not recognised,
# and a grant that is narrowed to exactly this path refuses the table.
KEYWORDS = frozenset(
    [
        "all",
        "analyse",
        "analyze",
        "and",
        "any",
        "array",
        "as",
        "asc",
        "asymmetric",
        "authorization",
        "between",
        "bigint",
        "binary",
        "bit",
        "boolean",
        "both",
        "case",
        "cast",
        "char",
        "character",
        "check",
        "coalesce",
        "collate",
        "collation",
        "column",
        "concurrently",
        "constraint",
        "create",
        "cross",
        "current_catalog",
        "current_date",
        "current_role",
        "current_schema",
        "current_time",
        "current_timestamp",
        "current_user",
        "dec",
        "decimal",
        "default",
        "deferrable",
        "desc",
        "distinct",
        "do",
        "else",
        "end",
        "except",
        "exists",
        "extract",
        "false",
        "fetch",
        "float",
        "for",
        "foreign",
        "freeze",
        "from",
        "full",
        "grant",
        "greatest",
        "group",
        "grouping",
        "having",
        "ilike",
        "in",
        "initially",
        "inner",
        "inout",
        "int",
        "integer",
        "intersect",
        "interval",
        "into",
        "is",
        "isnull",
        "join",
        "json",
        "json_array",
        "json_arrayagg",
        "json_exists",
        "json_object",
        "json_objectagg",
        "json_query",
        "json_scalar",
        "json_serialize",
        "json_table",
        "json_value",
        "lateral",
        "leading",
        "least",
        "left",
        "like",
        "limit",
        "localtime",
        "localtimestamp",
        "merge_action",
        "national",
        "natural",
        "nchar",
        "none",
        "normalize",
        "not",
        "notnull",
        "null",
        "nullif",
        "numeric",
        "offset",
        "on",
        "only",
        "or",
        "order",
        "out",
        "outer",
        "overlaps",
        "overlay",
        "placing",
        "position",
        "precision",
        "primary",
        "real",
        "references",
        "returning",
        "right",
        "row",
        "select",
        "session_user",
        "setof",
        "similar",
        "smallint",
        "some",
        "substring",
        "symmetric",
        "system_user",
        "table",
        "tablesample",
        "then",
        "time",
        "timestamp",
        "to",
        "trailing",
        "treat",
        "trim",
        "true",
        "union",
        "unique",
        "user",
        "using",
        "values",
        "varchar",
        "variadic",
        "verbose",
        "when",
        "where",
        "window",
        "with",
        "xmlattributes",
        "xmlconcat",
        "xmlelement",
        "xmlexists",
        "xmlforest",
        "xmlnamespaces",
        "xmlparse",
        "xmlpi",
        "xmlroot",
        "xmlserialize",
        "xmltable",
    ]
)


@dataclass(frozen=True, slots=True)
class TableName:
    """A name of one or two parts, folded as PostgreSQL folds names of ASCII letters."""

    schema: str | None
    name: str
    text: str = field(default="", compare=False, repr=False)
    """The name as it was written."""


def table_name(identifier: str) -> TableName | None:
    """Return the table that an identifier names, or None for a query."""
    match = _TABLE.fullmatch(identifier)
    if match is None or _SURROGATE.search(identifier):
        return None
    first, second = match.groups()
    if second:
        return TableName(_fold(first), _fold(second), identifier)
    return TableName(None, _fold(first), identifier)


def listed_path(identifier: str) -> str | None:
    """Return the path in listings of the table that an identifier names, as `quote_ident` spells it.

    None for a query; for a name without a schema, which the server looks up on its search path; and
    for letters beyond ASCII without quotes, which are folded by the server's encoding.
    """
    table = table_name(identifier)
    if table is None or table.schema is None or not _QUOTED.sub("", identifier).isascii():
        return None
    return f"{_quote(table.schema)}.{_quote(table.name)}"


def _quote(name: str) -> str:
    if _PLAIN.fullmatch(name) and name not in KEYWORDS:
        return name
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def schema_name(path: str) -> str | None:
    """Return the schema that a path names, or None if it is no identifier."""
    table = table_name(path)
    return table.name if table and table.schema is None else None


def _fold(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    # Only ASCII letters, as the server does in a database of more than one byte a character.
    return _UPPER.sub(lambda match: match[0].lower(), identifier)

"""Decide whether a statement only reads; `guard.py` tells the layers in their order."""

from datasources_postgresql.guard.closure import Execute
from datasources_postgresql.guard.guard import Guard, Permit, parse_statement
from datasources_postgresql.guard.lookup import SNAPSHOT
from datasources_postgresql.guard.policy import FunctionPolicy
from datasources_postgresql.guard.text import Statement, parse_one, parse_read, plain_select

__all__ = [
    "SNAPSHOT",
    "Execute",
    "FunctionPolicy",
    "Guard",
    "Permit",
    "Statement",
    "parse_one",
    "parse_read",
    "parse_statement",
    "plain_select",
]

"""Splits of tables and queries; `plans.py` tells how they are planned and read."""

from datasources_postgresql.splits.plans import SplitPlanner, SplitRequest

__all__ = ["SplitPlanner", "SplitRequest"]

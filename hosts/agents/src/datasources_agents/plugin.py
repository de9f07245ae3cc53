"""Commands of the command line; this module stays light to import."""

from __future__ import annotations

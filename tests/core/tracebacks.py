"""What tools that report errors show of a traceback."""

from __future__ import annotations

import traceback
from pathlib import Path

import datasources

PACKAGE = str(Path(datasources.__file__).parent)


def local_variables(error: BaseException) -> str:
    """Return the local variables of core's frames in the traceback of an error and its causes."""
    shown: list[object] = []
    current: BaseException | None = error
    while current is not None:
        for frame, _ in traceback.walk_tb(current.__traceback__):
            if frame.f_code.co_filename.startswith(PACKAGE):
                shown.append(frame.f_locals)
        shown.append(current)
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
    return repr(shown)

"""What Schemathesis cannot guess: a source that can be made, and items that it has.

The server that is tested has to be in `JUDGED_DATA`, a directory with a file `t.csv`.
"""

import os
from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Have some of the valid requests name a source and an item that can be had."""
    operation = case.operation.definition.raw["operationId"]
    if operation == "revoke_token" and case.path_parameters["name"].startswith("judge-"):
        case.path_parameters["name"] = "nobody"  # the list of tokens has told it
    number = sum(str(case.body).encode()) % 4
    if case.meta and not case.meta.generation.mode.is_positive:
        return
    if operation == "put_source" and number:
        case.body = {"type": "local_file", "options": {"path": os.environ["JUDGED_DATA"]}}
        case.headers["If-None-Match"] = "*"
    elif isinstance(case.body, dict) and "item" in case.body and number:
        case.body["item"] = "t.csv"

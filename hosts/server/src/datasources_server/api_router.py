"""Routes of the API, with the answers that all of them may have."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from datasources_server.documents import ProblemDocument

_PROBLEM = {"model": ProblemDocument, "content": {"application/problem+json": {}}}
PROBLEMS: dict[int | str, dict[str, Any]] = dict.fromkeys(
    (400, 401, 403, 404, 408, 409, 412, 413, 416, 421, 422, 428, 429, 500, 501, 502, 503, 504, 507),
    _PROBLEM,
)
"""The statuses of problems, for the OpenAPI document."""


class ApiRouter(APIRouter):
    """Routes below `/v1`; the arguments are those of `APIRouter`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            responses=PROBLEMS,
            generate_unique_id_function=lambda route: route.name,
            **arguments,
        )

"""A FastAPI application that returns given bytes, as a floor for the server: `BODY` is their file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse

app = FastAPI()
_BODY = Path(os.environ["BODY"]).read_bytes()
_CHUNK = bytes(256 * 1024)


@app.get("/list")
def get_list() -> Response:
    return Response(_BODY, media_type="application/json")


@app.get("/content")
def get_content(size: int) -> StreamingResponse:
    def chunks() -> Iterator[bytes]:
        for start in range(0, size, len(_CHUNK)):
            yield _CHUNK[: size - start]

    return StreamingResponse(chunks(), headers={"Content-Length": str(size)})

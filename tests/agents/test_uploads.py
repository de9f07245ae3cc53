"""The records of uploads of the gateway."""

from __future__ import annotations

import io
from typing import Any

from datasources import Record
from datasources.stores import MemoryRecords
from datasources_agents.gateway import GatewaySettings
from datasources_agents.gateway.uploads import Uploads


class Upstream:
    async def upload(self, *_: Any) -> str:
        return "file-0"


async def test_record_that_was_removed_is_not_written_again() -> None:
    """The thread of an upload that was cancelled may write later than the deletion."""

    class Records(MemoryRecords):
        def put(self, record: Record, *, expected: int | None = None) -> Record:
            if record.data["file_id"] is not None:
                self.remove(record.kind, record.id)
            return super().put(record, expected=expected)

    records, upstream = Records(), Upstream()
    settings = GatewaySettings(url="http://127.0.0.1/v1", mode="file_ids")
    uploads = Uploads(records, upstream, settings)  # type: ignore[arg-type]
    record = uploads.plan("ann", "a.csv", "mark")
    assert await uploads.upload(record, io.BytesIO()) == "file-0"
    assert records.get(record.kind, record.id) is None

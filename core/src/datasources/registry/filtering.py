"""Choose a page of the sources in a store."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from datasources.errors import OptionError
from datasources.models import is_whole
from datasources.stores import StoredSource


@dataclass(frozen=True)
class SourceFilter:
    """A page of a list of sources, as `DataSourceRegistry.list_data_sources` takes it.

    Raises:
        OptionError: The limit is not at least 1.
    """

    after: str | None = None
    limit: int | None = None
    type: str | None = None
    q: str = ""

    def __post_init__(self) -> None:
        if not (self.limit is None or is_whole(self.limit, 1)):
            raise OptionError("'limit' must be at least 1; None is no bound")

    def of(self, records: Iterable[StoredSource]) -> list[StoredSource]:
        """Return the page of records that are in the order of their ids; reads no more of them."""
        if self.after is None and self.type is None and not self.q:
            return list(itertools.islice(records, self.limit))
        text = self.q.casefold()
        matching = (
            record
            for record in records
            if (self.after is None or record.id > self.after)
            and (self.type is None or record.type == self.type)
            and (not text or text in record.id.casefold() or text in record.name.casefold())
        )
        return list(itertools.islice(matching, self.limit))

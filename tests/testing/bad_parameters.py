"""Bad connectors for the checks of parameters."""

from __future__ import annotations

from typing import Any

from datasources import BoundQuery, ColumnStatistics, Preview
from tests.testing.good import GoodConnector
from tests.testing.spoil import Bad, made


async def _paste(self: Any, query: BoundQuery, rows: int = 10) -> Preview:
    text = query.text.replace(":value", f"'{query.values['value']}'")
    return Preview(("value",), [(text.split("'")[1],)], truncated=False)


async def _write_null(self: Any, query: BoundQuery, rows: int = 10) -> Preview:
    return Preview(("value",), [(str(query.values["value"]),)], truncated=False)


async def _fetch_to_another_name(self: Any, query: BoundQuery, workspace: str) -> str:
    other = BoundQuery("other", query.text, query.values, query.types)
    return await GoodConnector.fetch_query(self, other, workspace)


async def _describe_another(self: Any, query: BoundQuery) -> dict[str, Any]:
    return {"columns": [{"name": "another", "type": "text"}]}


async def _measure_another(self: Any, query: BoundQuery) -> dict[str, ColumnStatistics]:
    return {"another": ColumnStatistics(0, 0, None, None, None)}


PARAMETERS: dict[str, Bad] = {
    "test_the_text_of_a_query_has_the_parameters_that_are_bound": Bad(
        "not the parameter that is bound",
        made(query_parameters=classmethod(lambda cls, query: list(query.parameters))),
    ),
    "test_a_text_comes_back_as_it_was_given": Bad(
        "came back otherwise", made(preview_query=_paste)
    ),
    "test_a_query_is_fetched_to_a_file_of_its_name": Bad(
        "stored", made(fetch_query=_fetch_to_another_name)
    ),
    "test_a_query_is_described_by_its_columns": Bad(
        "other columns than the result", made(describe_query=_describe_another)
    ),
    "test_figures_of_a_query_are_of_its_columns": Bad(
        "columns of another result", made(query_statistics=_measure_another)
    ),
    "test_a_parameter_without_a_value_is_null": Bad("None", made(preview_query=_write_null)),
}

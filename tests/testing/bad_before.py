"""Bad connectors for the checks of what is asked before a source exists, and where it would lead."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from datasources import ConnectError
from tests.testing.spoil import Bad, keeps_open, made, options

_numbers = itertools.count()


async def _discover_another_option(
    cls: type, options: Mapping[str, Any], *, check_address: Callable[[str], None]
) -> dict[str, list[str]]:
    return {"database": ["sales"]}


async def _discover_others(
    cls: type, options: Mapping[str, Any], *, check_address: Callable[[str], None]
) -> dict[str, list[str]]:
    return {"shelf": ["second"]}


async def _discover_loudly(
    cls: type, options: Mapping[str, Any], *, check_address: Callable[[str], None]
) -> dict[str, list[str]]:
    raise ConnectError(f"the server did not answer {options['token'][:1]}")


async def _discover_and_leave_open(
    cls: type, options: Mapping[str, Any], *, check_address: Callable[[str], None]
) -> dict[str, list[str]]:
    keeps_open()
    return {"shelf": ["first"]}


BEFORE: dict[str, Bad] = {
    "test_discover_gives_texts_by_the_names_of_options": Bad(
        "does not have", made(discover=classmethod(_discover_another_option))
    ),
    "test_discover_offers_the_values_of_the_source": Bad(
        "does not offer the value 'first'", made(discover=classmethod(_discover_others))
    ),
    "test_discover_with_wrong_credentials_is_refused_without_the_secret": Bad(
        "must be an AuthenticationError", made(discover=classmethod(_discover_loudly))
    ),
    "test_discover_leaves_nothing_open": Bad(
        "10 calls of discover", made(discover=classmethod(_discover_and_leave_open))
    ),
    "test_destination_is_the_same_for_the_same_options": Bad(
        "differs for the same options", options(destination=lambda self: {"n": next(_numbers)})
    ),
    "test_destination_holds_no_secret": Bad(
        "holds a secret",
        options(destination=lambda self: {"token": self.token.get_secret_value()}),
    ),
    "test_another_host_is_another_destination": Bad(
        "must be another destination", options(destination=lambda self: {"shelf": self.shelf})
    ),
}

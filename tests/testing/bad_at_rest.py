"""Bad connectors for the checks of what one declares, how it connects, and what it keeps secret."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import ConfigDict, Field

from datasources import (
    ConnectError,
    DataSourceConnector,
    ItemNotFoundError,
    OptionError,
)
from tests.testing.good import STORE, TOKEN, GoodConnector, GoodOptions
from tests.testing.spoil import (
    OPENED,
    Bad,
    after,
    before,
    connect_loudly,
    fetching,
    keeps_open,
    made,
    options,
    raising,
    when_missing,
)

_log = logging.getLogger(__name__)


class _Shared(GoodConnector):
    """Keeps its connection in the class."""

    __module__ = "datasources_kit"
    opened: Any = None

    async def connect(self) -> bool:
        type(self).opened = self._connection = True
        return True

    async def disconnect(self) -> None:
        type(self).opened = self._connection = None

    async def _all(self) -> dict[str, bytes]:
        if not type(self).opened:
            raise ConnectError("the source is not connected")
        return STORE


class _NotAModel:
    """Options that are a class of one's own."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> _NotAModel:
        return cls(values)


class _Incomplete(DataSourceConnector):
    __module__ = "datasources_kit"
    type = "kit"
    options_class = GoodOptions

    async def connect(self) -> bool:
        return True


class _Loud(GoodConnector):
    """Shows its options in its repr."""

    __module__ = "datasources_kit"

    def __repr__(self) -> str:
        return f"Connector({self.options.token.get_secret_value()})"


async def _leave_task(*_: Any, **__: Any) -> None:
    OPENED.append(asyncio.create_task(asyncio.sleep(30)))


async def _connect_again(self: Any) -> bool:
    self._connection = None
    return await GoodConnector.connect(self)


async def _connect_once(self: Any) -> bool:
    if getattr(self, "_was_connected", False):
        raise ConnectError("a connector connects once")
    self._was_connected = True
    return await GoodConnector.connect(self)


async def _test_closing(self: Any) -> bool:
    os.close(self._connection)
    self._connection = None
    STORE["a.csv"] = b"changed by a test"
    return True


async def _unchecked(self: Any) -> dict[str, bytes]:
    return dict(self._connection and STORE)


async def _once_connected(self: Any) -> dict[str, bytes]:
    return STORE


def _opens_in_constructor(self: Any, config: Any) -> None:
    GoodConnector.__init__(self, config)
    keeps_open()


def _load_telling(cls: Any, values: Mapping[str, Any]) -> Any:
    try:
        return super(GoodOptions, cls).load(values)
    except OptionError:
        raise OptionError(f"bad options: {values}") from None


async def _fetch_raw(self: Any) -> str:
    for _ in range(6):
        await asyncio.sleep(0)
    os.fstat(self._connection)
    return ""


_plain_host = {"host": (str, Field(examples=["x"]))}


AT_REST: dict[str, Bad] = {
    # The class.
    "test_waivers_name_checks_and_give_reasons": Bad("no check 'test_no'", waived={"test_no": "x"}),
    "test_class_is_a_connector_with_all_six_methods": Bad(
        "lacks disconnect", cast("Any", _Incomplete)
    ),
    "test_method_is_a_coroutine_function": Bad("async def", made(connect=lambda self: True)),
    "test_method_takes_the_contracts_arguments": Bad(
        "cannot be called by the contract", made(get_metadata=lambda self, name: None)
    ),
    "test_list_items_needs_no_path": Bad("by default", made(list_items=lambda self, path: [])),
    "test_type_is_a_valid_name_and_the_subjects": Bad("not a type name", made(type="Kit Type")),
    "test_api_version_is_the_one_core_speaks": Bad("2 <= 1", made(api_version=2)),
    "test_shareable_is_true_or_false": Bad("isinstance", made(shareable="yes")),
    "test_abilities_are_those_claimed": Bad("must be those", changes={"abilities": ["glob"]}),
    "test_construction_opens_nothing_and_needs_no_loop": Bad(
        "open in connect", made(__init__=_opens_in_constructor)
    ),
    "test_two_known_items_one_of_them_not_empty_are_given": Bad(
        "two items", changes={"items": {"a.csv": b"x"}}
    ),
    # The options.
    "test_options_are_a_model_of_connector_options": Bad(
        "issubclass", made(options_class=_NotAModel)
    ),
    "test_good_options_are_accepted": Bad("option 'port' is missing", options(port=(int, ...))),
    "test_every_option_is_described": Bad("description to host", options(**_plain_host)),
    "test_every_required_option_has_an_example": Bad(
        "to host", options(host=(str, Field(description="Where.")))
    ),
    "test_every_example_is_valid": Bad(
        "example of 'port'", options(port=(int, Field(1, description="Which.", examples=["x"])))
    ),
    "test_template_is_a_valid_source": Bad(
        "port", options(port=(int, Field(description="Which.", ge=10, examples=[3])))
    ),
    "test_json_schema_builds_for_forms": Bad(
        "JsonSchema", options(call=(Callable[[], int] | None, Field(None, description="It.")))
    ),
    "test_unknown_options_are_refused_by_name": Bad(
        "DID NOT RAISE", options(model_config=ConfigDict(extra="allow"))
    ),
    "test_missing_options_are_refused_by_name": Bad(
        "Regex", options(load=classmethod(lambda *_: raising(OptionError("no"))()))
    ),
    "test_ill_typed_options_are_option_errors_without_the_value": Bad(
        "repeats its value",
        options(load=classmethod(_load_telling)),
    ),
    "test_options_that_could_be_secrets_are_declared_so": Bad(
        "make password", options(password=(str, Field("", description="Password.")))
    ),
    "test_options_cannot_be_changed_once_loaded": Bad(
        "frozen", options(model_config=ConfigDict(frozen=False))
    ),
    "test_hosts_and_paths_are_texts": Bad("return a list", options(hosts=lambda self: self.host)),
    "test_hosts_are_names_without_scheme_or_port": Bad(
        "alone", options(hosts=lambda self: [f"https://{self.host}"])
    ),
    "test_sample_identifiers_are_pairs_of_text": Bad(
        "sample_identifiers is", options(sample_identifiers=["a.csv"])
    ),
    # The distribution.
    "test_entry_point_bears_the_type": Bad(
        "no installed distribution", made(type="unlisted"), {"type": "unlisted"}
    ),
    "test_plugin_gives_the_class_when_it_is_asked_for": Bad(
        "'other'", made(type="other"), {"type": "other"}
    ),
    "test_importing_the_plugin_imports_no_driver": Bad(
        "imports .*pydantic", made(type="heavy"), {"type": "heavy"}
    ),
    "test_metadata_name_version_summary_licence_and_python": Bad(
        "lack Summary", made(type="bare"), {"type": "bare"}
    ),
    "test_metadata_pins_the_major_version_of_core": Bad(
        "next major version", made(type="loose"), {"type": "loose"}
    ),
    "test_package_says_that_it_is_typed": Bad(
        "py.typed", made(__module__="datasources_kit_bare.connector")
    ),
    # Connecting.
    "test_connect_returns_true": Bad("is True", after("connect", lambda _: None)),
    "test_connecting_twice_does_nothing_more": Bad("left behind", made(connect=_connect_again)),
    "test_disconnecting_without_connecting_is_harmless": Bad(
        "TypeError", before("disconnect", lambda self: os.fstat(self._connection))
    ),
    "test_disconnecting_twice_is_harmless": Bad(
        "TypeError", before("disconnect", lambda self: os.fstat(self._connection))
    ),
    "test_disconnecting_leaves_nothing_open": Bad(
        "left behind: task", before("connect", _leave_task)
    ),
    "test_a_disconnected_connector_connects_again": Bad(
        "connects once", made(connect=_connect_once)
    ),
    "test_testing_a_connection_is_true": Bad("is True", after("test_connection", lambda _: None)),
    "test_testing_leaves_the_connection_usable": Bad(
        "changed by a test", made(test_connection=_test_closing)
    ),
    "test_testing_before_connecting_is_an_answer": Bad(
        "boom", before("test_connection", raising(RuntimeError("boom")))
    ),
    "test_use_before_connecting_is_a_clear_error": Bad("ConnectError", made(_all=_unchecked)),
    "test_use_after_disconnecting_is_a_clear_error": Bad(
        "must raise ConnectError", made(_all=_once_connected)
    ),
    "test_instances_do_not_share_their_connection": Bad("not connected", _Shared),
    "test_disconnecting_during_a_fetch_ends_it": Bad(
        "must be a DataSourceError", fetching(lambda self, *_: _fetch_raw(self))
    ),
    # Secrets.
    "test_secrets_are_not_in_repr_or_str": Bad("is in repr or str", _Loud),
    "test_secrets_are_masked_in_stored_options": Bad(
        "is in the options as", options(redact=classmethod(lambda cls, values: dict(values)))
    ),
    "test_secrets_are_not_in_option_errors": Bad(
        "is in an error about options",
        options(load=classmethod(_load_telling)),
    ),
    "test_secrets_are_not_in_log_records": Bad(
        "is in a log record",
        before("fetch_data", lambda self, *_: _log.debug("%s", self.config.config)),
    ),
    "test_secrets_are_not_in_listings_or_metadata": Bad(
        "is in a listing", after("get_metadata", lambda found: found | {"url": f"x?t={TOKEN}"})
    ),
    "test_secrets_are_not_in_errors_or_tracebacks": Bad(
        "is in an error", when_missing(lambda name: ItemNotFoundError(f"no {name} for {TOKEN}"))
    ),
    "test_secrets_are_not_in_errors_of_a_failed_connect": Bad(
        "is in the error", made(connect=connect_loudly)
    ),
}

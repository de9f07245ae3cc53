"""Export and import of sources."""

from __future__ import annotations

import copy
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings, strategies as st

from datasources import (
    CredentialManager,
    DataSourceConfig,
    DataSourceExistsError,
    DataSourceRegistry,
    DecryptionError,
    Limits,
    OptionError,
    transfer,
)
from datasources.transfer import export_sources, import_sources, is_encrypted, read_export
from tests.core.fakes import MemoryConnector, SeedConnector

SECRET = "m4rker-s3cret"
PASSPHRASE = "correct horse 🐎"


def new_registry() -> DataSourceRegistry:
    registry = DataSourceRegistry(CredentialManager(CredentialManager.generate_key()))
    registry.register_connector_class("memory", MemoryConnector)
    registry.register_connector_class("custom", SeedConnector)
    return registry


@pytest.fixture(autouse=True)
def _quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_SCRYPT", {"n": 2**10, "r": 8, "p": 1})


@pytest.fixture
async def registry():
    registry = new_registry()
    await registry.register_data_sources(
        [
            DataSourceConfig(
                "sales",
                "memory",
                "Sales",
                {"host": "h", "password": SECRET},
                created_at=1.5,
                metadata={"owner": "ops"},
                limits=Limits(max_rows=None, timeout=9.5),
            ),
            DataSourceConfig(
                "own",
                "custom",
                "Own",
                {"dir": "/x", "nested": {"deep": [{"password": SECRET}]}, "ref": "${env:X}"},
            ),
            DataSourceConfig("ref", "memory", "Ref", {"password": "${env:PW}"}),
        ]
    )
    yield registry
    await registry.close()


IDS = ["sales", "own", "ref"]


async def test_secrets_are_left_out_and_listed(registry):
    document = json.loads(json.dumps(export_sources(registry, IDS)))
    assert SECRET not in json.dumps(document)
    sales, own, ref = document["sources"]
    assert (sales["options"], sales["left_out"]) == ({"host": "h"}, ["password"])
    assert (own["options"], own["left_out"]) == ({"dir": "/x", "ref": "${env:X}"}, ["nested"])
    assert (ref["options"], ref["left_out"]) == ({"password": "${env:PW}"}, [])


async def test_what_is_not_secret_survives_the_way_there_and_back(registry):
    document = json.loads(json.dumps(export_sources(registry, ["sales"])))
    (imported,) = read_export(document)
    assert imported.left_out == ("password",)
    async with new_registry() as other:
        await import_sources(other, [imported.config])
        before, after = registry.get_config("sales"), other.get_config("sales")
        assert after.config == {"host": "h"}
        assert (after.created_at, after.metadata) == (1.5, {"owner": "ops"})
        assert (after.name, after.type, after.limits) == (before.name, before.type, before.limits)


async def test_an_encrypted_export_brings_everything_back(registry):
    document = json.loads(json.dumps(export_sources(registry, IDS, PASSPHRASE)))
    text = json.dumps(document)
    assert is_encrypted(document)
    for hidden in (SECRET, "sales"):  # shorter texts may stand in the token by chance
        assert hidden not in text
    async with new_registry() as other:
        await import_sources(
            other, [imported.config for imported in read_export(document, PASSPHRASE)]
        )
        for source_id in IDS:
            sent, got = (
                each.get_config(source_id, decrypt=True, sanitize=False)
                for each in (registry, other)
            )
            assert sent == got


async def test_two_exports_share_neither_salt_nor_token(registry):
    first, second = (export_sources(registry, ["sales"], PASSPHRASE) for _ in range(2))
    assert first["encryption"]["salt"] != second["encryption"]["salt"]
    assert first["payload"] != second["payload"]


async def test_a_wrong_or_missing_passphrase_opens_nothing(registry):
    document = export_sources(registry, ["sales"], PASSPHRASE)
    with pytest.raises(DecryptionError, match="passphrase does not open"):
        read_export(document, PASSPHRASE + " ")
    with pytest.raises(OptionError, match="give its passphrase"):
        read_export(document)


async def test_an_empty_passphrase_is_refused(registry):
    with pytest.raises(OptionError, match="empty passphrase"):
        export_sources(registry, ["sales"], "")


async def test_damage_is_told(registry):
    document = export_sources(registry, ["sales"], PASSPHRASE)
    token = document["payload"]
    for payload in (token[:-9], "A" + token[1:], token[: len(token) // 2], ""):
        with pytest.raises(DecryptionError):
            read_export({**document, "payload": payload}, PASSPHRASE)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 2**30},
        {"n": 1000},
        {"n": 0},
        {"r": 2**20},
        {"p": 10**9},
        {"p": -1},
        {"n": None},
        {"kdf": "md5"},
        {"salt": "é"},
        {"salt": 3},
    ],
)
async def test_parameters_of_a_hostile_document_cost_nothing(registry, change):
    document = copy.deepcopy(export_sources(registry, ["sales"], PASSPHRASE))
    document["encryption"] |= change
    with pytest.raises(OptionError, match="encryption parameters"):
        read_export(document, PASSPHRASE)


async def test_ids_that_are_taken_are_all_named_and_nothing_is_imported(registry):
    configs = [imported.config for imported in read_export(export_sources(registry, IDS))]
    async with new_registry() as other:
        await import_sources(other, [configs[2]])
        await import_sources(other, [configs[0]])
        with pytest.raises(DataSourceExistsError, match="'sales', 'ref'"):
            await import_sources(other, configs)
        assert not other.exists("own")
        await import_sources(other, configs, replace=True)
        assert other.exists("own")


async def test_one_invalid_source_keeps_all_others_out(registry):
    document = export_sources(registry, IDS)
    document["sources"][1]["type"] = "memory"
    async with new_registry() as other:
        with pytest.raises(OptionError, match="source 'own': unknown option"):
            await import_sources(other, [imported.config for imported in read_export(document)])
        assert other.list_data_sources() == []


def entry(**changes: object) -> dict:
    return {"id": "a", "type": "memory", "name": "A", "options": {}} | changes


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x", "source 1 of this export lacks"),
        ({"id": "a"}, "lacks an 'id', a 'type' or a 'name'"),
        (entry(id=3), "lacks an 'id'"),
        (entry(id="../a"), "not a source id"),
        (entry(type="No"), "not a type name"),
        (entry(options=[]), "'options' must be an object"),
        (entry(metadata=3), "source 'a': 'metadata' must be a dict"),
        (entry(created_at="2026-01-01"), "source 'a': 'created_at' must be a number"),
        (entry(left_out="password"), "'left_out' must be a list of names"),
        (entry(limits={"max_row": 3}), "'limits': unknown 'max_row'; accepted: max_bytes"),
        (entry(limits={"max_rows": SECRET}), "'limits': 'max_rows' must be a whole number"),
        (entry(limits={"max_rows": -3}), "'limits': 'max_rows' must be a whole number of at least"),
        (entry(limits={"max_rows": True}), "'limits': 'max_rows' must be a whole number"),
        (entry(limits=[]), "'limits' must be a table of max_bytes, max_rows, timeout"),
        (entry(limits={"timeout": False}), "'limits': 'timeout' must be a number"),
        (entry(optoins={"password": SECRET}), "unknown 'optoins'; accepted: id, type"),
    ],
)
def test_a_malformed_entry_is_told_without_its_values(source, told):
    with pytest.raises(OptionError) as caught:
        read_export({"format": "datasources-export", "version": 1, "sources": [source]})
    assert told in str(caught.value)
    assert SECRET not in str(caught.value)


HEAD = {"format": "datasources-export", "version": 1}


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"format": "x"},
        {**HEAD, "version": 2, "sources": []},
        HEAD,
        {**HEAD, "sources": {}},
        {**HEAD, "sources": "x"},
    ],
)
def test_what_is_no_export_is_refused(document):
    with pytest.raises(OptionError, match=r"this export|no export"):
        read_export(document)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
keys = st.sampled_from(["id", "type", "name", "limits", "options", "metadata", "left_out", "x"])


@settings(deadline=None)
@given(st.lists(st.dictionaries(keys, values, max_size=8), max_size=3))
def test_any_entries_are_read_or_refused(sources):
    with suppress(OptionError):
        read_export({"format": "datasources-export", "version": 1, "sources": sources})

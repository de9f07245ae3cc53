"""File systems in other processes: pickles without secrets, and sources from the settings."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from datasources import CredentialManager, DataSourceConfig
from datasources.blocking import DataSourceRegistry
from datasources_fsspec import DataSourceFileSystem
from tests.fsspec.conftest import shop_config
from tests.servers import Database

SECRET = "canary-7d1f0c"


@pytest.fixture
def settings(
    tmp_path: Path, reports: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DataSourceFileSystem]:
    """A file system on a store with the source `stored`, and settings with the source `declared`."""
    key = CredentialManager.generate_key()
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", key)
    monkeypatch.setenv("DATASOURCES_STORE", str(tmp_path / "sources.db"))
    monkeypatch.setenv("DATASOURCES_CONFIG", str(tmp_path / "datasources.toml"))
    (tmp_path / "datasources.toml").write_text(
        f'[sources.declared]\ntype = "local_file"\noptions = {{ path = "{reports}" }}\n'
    )
    store = str(tmp_path / "sources.db")
    with DataSourceRegistry(CredentialManager(key), store=store) as registry:
        registry.register_data_source(
            DataSourceConfig("stored", "local_file", "", {"path": str(reports)})
        )
    DataSourceFileSystem.clear_instance_cache()
    yield fsspec.filesystem("datasource")
    DataSourceFileSystem.clear_instance_cache()


def test_sources_are_those_of_the_command_line(settings: DataSourceFileSystem) -> None:
    assert settings.ls("", detail=False) == ["declared", "stored"]
    for source in ("declared", "stored"):
        assert settings.cat(f"{source}/2023.csv") == b"x,y\n1,2\n"
    with pytest.raises(FileNotFoundError, match="'other'"):
        settings.info("other/2023.csv")


def test_another_process_finds_the_sources_by_the_same_settings(
    settings: DataSourceFileSystem,
) -> None:
    with settings.open("stored/2024.csv") as file:
        file.read(4)
        pickled = pickle.dumps((settings, file))
    code = (
        "import pickle, sys; sys.modules['click'] = sys.modules['rich'] = None;"  # needs no `cli`
        "fs, file = pickle.loads(sys.stdin.buffer.read());"
        "print(fs.cat('declared/2023.csv'), file.read())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], input=pickled, capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"b'x,y\\n1,2\\n' b'3,4\\n5,6\\n'\n", b"")


def test_a_process_that_has_read_a_table_ends_silently(
    settings: DataSourceFileSystem, registry: DataSourceRegistry, shop: Database
) -> None:
    config = shop_config(shop)
    environment = {f"DATASOURCES__SHOP__{key.upper()}": str(v) for key, v in config.config.items()}
    code = (
        "import fsspec; print(len(fsspec.open('datasource://shop/public.big.csv').open().read()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment, "DATASOURCES__SHOP__TYPE": "postgresql"},
        capture_output=True,
        check=True,
    )
    assert (int(done.stdout) > 0, done.stderr) == (True, b"")


def test_pickles_and_json_hold_no_option_of_a_source(
    registry: DataSourceRegistry, reports: Path, tmp_path: Path
) -> None:
    planted = tmp_path / SECRET
    reports.rename(planted)
    registry.register_data_source(
        DataSourceConfig("secret", "local_file", SECRET, {"path": str(planted)})
    )
    fs = fsspec.filesystem("datasource", registry=registry, limits={"max_rows": 5})
    fs.ls("secret")
    with fs.open("secret/2023.csv") as file:
        file.read()
        dumped = [pickle.dumps(fs), pickle.dumps(file), fs.to_json().encode()]
    assert [SECRET.encode() in text for text in dumped] == [False, False, False]
    assert json.loads(dumped[2])["limits"] == {"max_rows": 5}
    assert b"registry" not in dumped[0]


def test_errors_of_a_source_hold_no_secret_when_they_are_pickled(
    registry: DataSourceRegistry, shop: Database
) -> None:
    config = shop_config(shop)
    config.config["password"] = SECRET
    registry.register_data_source(config, replace=True)
    fs = fsspec.filesystem("datasource", registry=registry)
    with pytest.raises(PermissionError) as raised:
        fs.cat("shop/public.orders.csv")
    assert SECRET.encode() not in pickle.dumps(raised.value)
    assert SECRET not in str(raised.value)


def test_limits_of_the_settings_hold(
    settings: DataSourceFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "datasources.toml"
    path.write_text(f"{path.read_text()}\n[policy.limits]\nmax_bytes = 5\n")
    with pytest.raises(OSError, match="over the limit of 5 bytes"):
        settings.cat("stored/2023.csv")
    lifted = fsspec.filesystem("datasource", limits={"max_bytes": None})
    assert lifted.cat("stored/2023.csv") == b"x,y\n1,2\n"


def test_what_is_no_registry_is_refused() -> None:
    with pytest.raises(TypeError, match="'registry' must be a DataSourceRegistry"):
        DataSourceFileSystem(registry="sources.db", skip_instance_cache=True)

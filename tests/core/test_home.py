"""A leading `~` in settings and variables is the home directory: nothing else expands it there."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasources import CredentialManager, Policy, PolicyError
from datasources.config import read_settings
from datasources.credentials import resolve_references
from datasources.errors import SecretNotFoundError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("DATASOURCE_ENCRYPTION_KEY", raising=False)
    return home


def test_the_key_file_of_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = CredentialManager.generate_key()
    (home / "key").write_text(key)
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY_FILE", "~/key")
    assert CredentialManager().fingerprints == CredentialManager(key).fingerprints


def test_the_key_file_is_not_given_as_a_secret(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "key").write_text("not a key, so that only the path tells")
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY_FILE", "~/key")
    for path in (home / "key", "~/key"):
        with pytest.raises(SecretNotFoundError, match="the file holds keys"):
            resolve_references({"password": f"${{file:{path}}}"}, lambda *_: None)


def test_a_file_of_a_reference(home: Path) -> None:
    (home / "password").write_text("secret\n")
    options = resolve_references({"password": "${file:~/password}"}, lambda *_: None)
    assert options == {"password": "secret"}


def test_the_audit_log_of_settings_and_environment(home: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('audit_log = "~/audit.jsonl"')
    assert read_settings(settings, {}).audit_log == f"{home}/audit.jsonl"
    environ = {"DATASOURCES_AUDIT_LOG": "~/other.jsonl"}
    assert read_settings(settings, environ).audit_log == f"{home}/other.jsonl"


def test_the_directories_of_a_policy(home: Path, tmp_path: Path) -> None:
    policy = Policy(allowed_roots=("~/data",))
    policy.check_paths("s", [str(home / "data" / "x")])
    with pytest.raises(PolicyError):
        policy.check_paths("s", [str(tmp_path)])

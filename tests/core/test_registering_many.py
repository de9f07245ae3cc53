"""Thousands of sources are registered a few at a time, so that other tasks have their turn."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from datasources import CredentialManager, SQLiteStore, hookimpl
from datasources.credentials import CredentialManager as Credentials
from datasources.registry.observing import SOURCES_PER_TURN
from tests.core.fakes import fresh, registry_of, source

SOURCES = 300


class Steps:
    """Counts the sources that are worked on between two turns of another task."""

    def __init__(self) -> None:
        self.most = self._count = self.turns = 0

    def count(self) -> None:
        self._count += 1
        self.most = max(self.most, self._count)

    async def take_turns(self) -> None:
        while True:
            self._count = 0
            self.turns += 1
            await asyncio.sleep(0)

    @hookimpl
    def datasources_operation_started(self) -> None:
        self.count()

    @hookimpl
    def datasources_operation_finished(self) -> None:
        self.count()

    @hookimpl
    def datasources_source_registered(self) -> None:
        self.count()


async def test_no_turn_of_the_event_loop_works_on_more_than_some_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps()
    encrypted_on_loop = []
    encrypt = Credentials.encrypt_credentials

    def observed(self: Credentials, *args: Any, **options: Any) -> str:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            encrypted_on_loop.append(args)
        return encrypt(self, *args, **options)

    key = CredentialManager(CredentialManager.generate_key())
    store = SQLiteStore(tmp_path / "s.db")
    async with registry_of(fresh(), store=store, credential_manager=key) as registry:
        registry.plugins.register_plugin(steps)
        monkeypatch.setattr(Credentials, "encrypt_credentials", observed)
        check = registry._factory.validate

        async def validate(config: Any, **options: Any) -> Any:
            steps.count()
            return await check(config, **options)

        monkeypatch.setattr(registry._factory, "validate", validate)
        turns = asyncio.create_task(steps.take_turns())
        await registry.register_data_sources([source(f"s{n}") for n in range(SOURCES)])
        turns.cancel()
        assert len(registry.list_data_sources()) == SOURCES
    assert steps.most <= SOURCES_PER_TURN + 1
    assert steps.turns > SOURCES / SOURCES_PER_TURN
    assert encrypted_on_loop == []

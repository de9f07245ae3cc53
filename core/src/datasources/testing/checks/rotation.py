"""Checks of a secret that is changed at the system while a source is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from datasources import AuthenticationError, ConnectorError
from datasources.testing.base import Checks, registry_of
from datasources.testing.subject import Subject


class RotationChecks(Checks):
    """A secret that is rotated costs one refusal at most."""

    async def test_a_rotated_secret_is_an_authentication_error(
        self, subject: Subject, workspace: Path
    ) -> None:
        rotate = subject.given("rotate")
        connector = subject.connector(await asyncio.to_thread(rotate))
        identifier, content = subject.largest()
        await connector.connect()
        try:
            path = Path(await connector.fetch_data(identifier, str(workspace)))
            assert path.read_bytes() == content
            await asyncio.to_thread(rotate)
            with pytest.raises(ConnectorError):
                await connector.fetch_data(identifier, str(workspace))
        finally:
            await connector.disconnect()
        try:
            with pytest.raises(AuthenticationError):
                await connector.connect()
                await connector.list_items()
        finally:
            await connector.disconnect()

    async def test_a_rotated_secret_is_read_again_after_one_refusal(
        self, subject: Subject, workspace: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rotate = subject.given("rotate")
        identifier, content = subject.largest()
        options = _by_reference(subject, await asyncio.to_thread(rotate), monkeypatch)
        async with registry_of(subject) as registry:
            await registry.register_data_source(subject.config(options))
            await registry.fetch("subject", identifier, workspace)
            _by_reference(subject, await asyncio.to_thread(rotate), monkeypatch)
            refusals = []
            for _ in range(2):
                try:
                    receipt = await registry.fetch("subject", identifier, workspace)
                except ConnectorError as exc:
                    refusals.append(exc)
                else:
                    assert Path(receipt.path).read_bytes() == content
                    return
            pytest.fail(
                f"after a rotation one refusal is enough, but there were {refusals!r}: raise "
                "AuthenticationError or ConnectError, so that the registry connects anew"
            )


def _by_reference(
    subject: Subject, options: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Put the secrets of options into the environment; return the options with references."""
    named = dict(options)
    for name in subject.secret_options:
        if isinstance(named.get(name), str):
            variable = f"DATASOURCES_CONTRACT_{name.upper()}"
            monkeypatch.setenv(variable, named[name])
            named[name] = f"${{env:{variable}}}"
    return named

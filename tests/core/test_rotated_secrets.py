"""A secret that is rotated where it is valid works again after one refusal."""

from __future__ import annotations

import pytest

from datasources import AuthenticationError, DataItem
from tests.core.fakes import MemoryConnector, fresh, registry_of, source


class Guarded(MemoryConnector):
    """A server that admits the password of now, also on connections that are open already."""

    valid = "first-pass-1"

    def _admit(self) -> None:
        password = self.options.password
        if password is None or password.get_secret_value() != self.valid:
            raise AuthenticationError("the password is wrong")

    async def connect(self) -> bool:
        self._admit()
        return await super().connect()

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        self._admit()
        return await super().list_items(path)


class SharedGuarded(Guarded):
    shareable = True


@pytest.mark.parametrize("base", [Guarded, SharedGuarded])
async def test_rotated_reference_is_resolved_anew_after_one_refusal(
    base: type[Guarded], monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = fresh(base)
    monkeypatch.setenv("ROTATING", "first-pass-1")
    async with registry_of(cls) as registry:
        await registry.register_data_source(source(password="${env:ROTATING}"))
        await registry.list_items("s")
        monkeypatch.setattr(cls, "valid", "second-pass-2")
        monkeypatch.setenv("ROTATING", "second-pass-2")
        with pytest.raises(AuthenticationError):
            await registry.list_items("s")
        assert await registry.list_items("s")
        assert cls.connects == 2
        assert cls.live == 1


@pytest.mark.parametrize("base", [Guarded, SharedGuarded])
async def test_wrong_secret_is_tried_once_for_each_call(
    base: type[Guarded], monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = fresh(base)
    attempts: list[Guarded] = []

    def admit(connector: Guarded) -> None:
        attempts.append(connector)
        Guarded._admit(connector)

    monkeypatch.setattr(cls, "_admit", admit)
    async with registry_of(cls) as registry:
        await registry.register_data_source(source(password="never-valid"))
        for _ in range(3):
            with pytest.raises(AuthenticationError):
                await registry.list_items("s")
        assert len(attempts) == 3

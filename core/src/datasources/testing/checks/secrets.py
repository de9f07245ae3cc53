"""Checks that no secret is in what is printed, logged, raised or returned."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pytest

from datasources import DataSourceError
from datasources.testing.base import Checks
from datasources.testing.subject import Subject


class SecretChecks(Checks):
    """The values of secret options are not shown."""

    def test_secrets_are_not_in_repr_or_str(self, subject: Subject) -> None:
        secrets = subject.secrets()
        connector = subject.connector()
        for what in (connector, connector.options, connector.config):
            _assert_absent(secrets, [repr(what), str(what)], f"repr or str of {type(what)}")

    def test_secrets_are_masked_in_stored_options(self, subject: Subject) -> None:
        secrets = subject.secrets()
        declared = subject.connector().options
        masked = type(declared).redact(dict(subject.options))
        _assert_absent(secrets, [json.dumps(masked)], "the options as lists and stores show them")

    def test_secrets_are_not_in_option_errors(self, subject: Subject) -> None:
        secrets = subject.secrets()
        for name in [*subject.options, "no_such_option"]:
            with pytest.raises(DataSourceError) as caught:
                subject.connector({**subject.options, name: {"odd": 1}, "another": secrets[0]})
            _assert_absent(secrets, _texts_of(caught.value), "an error about options")

    async def test_secrets_are_not_in_log_records(
        self, subject: Subject, workspace: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        secrets = subject.secrets()
        with caplog.at_level(logging.DEBUG):
            await _use(subject, workspace)
            records = [logging.Formatter().format(record) for record in caplog.records]
        _assert_absent(secrets, records, "a log record")

    async def test_secrets_are_not_in_listings_or_metadata(
        self, subject: Subject, workspace: Path
    ) -> None:
        secrets = subject.secrets()
        texts = await _use(subject, workspace)
        _assert_absent(secrets, texts, "a listing, metadata or a path")

    async def test_secrets_are_not_in_errors_or_tracebacks(
        self, subject: Subject, workspace: Path
    ) -> None:
        secrets = subject.secrets()
        connector = subject.connector()
        await connector.connect()
        try:
            for call in (
                lambda: connector.fetch_data(subject.missing, str(workspace)),
                lambda: connector.get_metadata(subject.missing),
            ):
                with pytest.raises(DataSourceError) as caught:
                    await call()
                _assert_absent(secrets, _texts_of(caught.value), "an error or its traceback")
        finally:
            await connector.disconnect()

    @pytest.mark.parametrize("way", ["refused", "unanswered"])
    async def test_secrets_are_not_in_errors_of_a_failed_connect(
        self, subject: Subject, way: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        if not subject.secret_options:
            pytest.skip("not applicable: no option is declared secret")
        options = getattr(subject, way)()
        secrets = subject.secrets(options)
        connector = subject.connector(options)
        with caplog.at_level(logging.DEBUG), pytest.raises(DataSourceError) as caught:
            try:
                await connector.connect()
                await connector.list_items()
            finally:
                await connector.disconnect()
        records = [logging.Formatter().format(record) for record in caplog.records]
        _assert_absent(secrets, _texts_of(caught.value), "the error or its traceback")
        _assert_absent(secrets, records, "a log record")


async def _use(subject: Subject, workspace: Path) -> list[str]:
    """Use every method once; return the texts of all results and errors."""
    connector = subject.connector()
    texts = []
    await connector.connect()
    try:
        await connector.test_connection()
        texts += [json.dumps(asdict(item), default=str) for item in await connector.list_items()]
        for identifier in subject.items:
            texts.append(json.dumps(await connector.get_metadata(identifier), default=str))
            texts.append(await connector.fetch_data(identifier, str(workspace)))
        try:
            await connector.fetch_data(subject.missing, str(workspace))
        except DataSourceError as exc:
            texts.append(str(exc))
    finally:
        await connector.disconnect()
    return texts


def _texts_of(error: BaseException) -> list[str]:
    return [str(error), repr(error), "".join(traceback.format_exception(error))]


def _assert_absent(secrets: Iterable[str], texts: Iterable[str], where: str) -> None:
    for text in texts:
        for secret in secrets:
            # Not by assert, whose report would show the text with the secret.
            if secret in text:
                pytest.fail(f"a secret option's value is in {where}", pytrace=False)

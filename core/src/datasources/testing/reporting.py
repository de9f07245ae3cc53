"""Report a subject that cannot be made once, and skip the checks that need it.

The fixture `subject` is the author's. If it fails, or one that it is made with, every check that
requests it would show the same traceback. So the first such check is an error, with the traceback,
and the others of the class are skipped, with the error as the reason.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from datasources.testing.subject import Subject

_NEEDED = pytest.StashKey[bool]()
_VERIFIED = pytest.StashKey[bool]()
_PLUGIN = "datasources-testing-reporting"


def report_subjects_once(config: pytest.Config) -> None:
    """Let pytest skip checks of a class whose subject cannot be made, from the second on."""
    if not config.pluginmanager.has_plugin(_PLUGIN):
        config.pluginmanager.register(_Reporting(), _PLUGIN)


def verified_subject(request: pytest.FixtureRequest) -> None:
    """Make the subject; an error is raised in the first check of the class only."""
    subject = request.getfixturevalue("subject")
    if not isinstance(subject, Subject):
        raise TypeError(f"the fixture 'subject' must return a Subject, not {subject!r}")
    subject.connector()  # with options that the class refuses, no check has a meaning
    request.node.stash[_VERIFIED] = True


def subject_if_needed(request: pytest.FixtureRequest) -> Subject:
    """Make the subject for a check that does not name it among its fixtures."""
    skip_without_subject(request.node)
    request.node.stash[_NEEDED] = True
    subject: Subject = request.getfixturevalue("subject")
    request.node.stash[_VERIFIED] = True
    return subject


def skip_without_subject(item: pytest.Item) -> None:
    """Skip a check of a class whose subject cannot be made."""
    plugin = item.config.pluginmanager.get_plugin(_PLUGIN)
    reason = plugin.failures.get(item.parent) if plugin else None
    if reason is not None:
        pytest.skip(f"there is no subject: {reason}")


class _Reporting:
    """A plugin of pytest that notes which classes have no subject."""

    def __init__(self) -> None:
        self.failures: dict[Any, str] = {}
        """The error by the collector of a class."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if _needs_subject(item):
            skip_without_subject(item)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        failed = call.when == "setup" and report.failed and _needs_subject(item)
        if failed and call.excinfo is not None and not item.stash.get(_VERIFIED, False):
            error = call.excinfo.exconly().strip().splitlines()[0]
            self.failures[item.parent] = f"{error} (shown in full by {item.name})"
        return report


def _needs_subject(item: pytest.Item) -> bool:
    return "subject" in getattr(item, "fixturenames", ()) or item.stash.get(_NEEDED, False)

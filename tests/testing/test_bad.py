"""Every check of the contract can fail: on a connector made to fail just that one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from datasources.testing import ConnectorContract
from tests.testing.bad import BAD

CHECKS = [name for name in dir(ConnectorContract) if name.startswith("test_")]

SESSION = """
import pytest
from datasources.testing import ConnectorContract, watch
from tests.testing.bad import BAD
from tests.testing.spoil import Bad

watch.SETTLE = watch.END = 0.3  # what is bad stays so; no need to wait for it
watch.PAUSE = 0.05

def only(check, bad):
    group = next(cls for cls in ConnectorContract.__mro__ if check in vars(cls))
    others = {name: None for name in dir(group) if name.startswith("test_") and name != check}
    def subject(self):
        return bad.subject()
    mine = {"subject": pytest.fixture(subject), "waived": bad.waived}
    return type("Test", (group,), {**others, **mine})

WAIVED = Bad("", waived={"test_connect_returns_true": "the system hangs up first"})
TestWaived = only("test_connect_returns_true", WAIVED)

for check, bad in BAD.items():
    globals()[f"TestBad_{check}"] = only(check, bad)
"""

COLLECT = """
import collections, json, pathlib, re

texts = collections.defaultdict(list)

def pytest_runtest_logreport(report):
    if report.failed and report.when != "teardown":
        texts[re.search(r"::TestBad_(\\w+)::", report.nodeid)[1]].append(report.longreprtext)

def pytest_sessionfinish(session):
    session.config.rootpath.joinpath("texts.json").write_text(json.dumps(texts))
"""

SETTINGS = """
[pytest]
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
addopts = -q -rs --no-header -p no:cacheprovider
"""


@dataclass(frozen=True)
class Session:
    """What came of one run of pytest."""

    printed: str
    failures: dict[str, list[str]]
    """What each check said, by its name."""


@pytest.fixture(scope="module")
def session(kits: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Run each check on the connector that is bad for it, all in one process of their own."""
    folder = tmp_path_factory.mktemp("session")
    files = {"pytest.ini": SETTINGS, "conftest.py": COLLECT, "test_all.py": SESSION}
    for name, text in files.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"--rootdir={folder}", str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{kits}{os.pathsep}{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    return Session(done.stdout, json.loads((folder / "texts.json").read_text()))


def test_there_is_a_bad_connector_for_each_check_and_at_least_sixty() -> None:
    assert sorted(BAD) == sorted(CHECKS)
    assert len(CHECKS) >= 60


@pytest.mark.parametrize("check", CHECKS)
def test_check_fails_on_a_connector_that_is_bad_in_that(session: Session, check: str) -> None:
    said = session.failures.get(check)
    assert said, "the check passes on a connector made to fail it"
    assert any(re.search(BAD[check].says, text) for text in said), said[0][-2000:]


def test_a_waived_check_is_skipped_and_the_report_says_why(session: Session) -> None:
    assert "test_connect_returns_true is waived: the system hangs up first" in session.printed

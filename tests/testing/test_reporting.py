"""A subject that cannot be made is one error, and checks of the class run without it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.testing.test_bad import SETTINGS

MODULE = """
import dataclasses
import pytest
from datasources.testing import ConnectorContract
from tests.testing.good import GoodConnector, good_subject

{fixtures}

class TestBroken(ConnectorContract):
    connector_class = {connector_class}

    @pytest.fixture
    def subject(self{argument}):
        {body}

class TestWorking(ConnectorContract):
    @pytest.fixture
    def subject(self):
        return good_subject()

    def test_only_this_one_more(self):
        pass
"""
SERVER = '@pytest.fixture(scope="session")\ndef server():\n    raise OSError("no server")'


def outcomes(
    folder: Path,
    kits: Path,
    *,
    body: str = "return good_subject()",
    fixtures: str = "",
    connector_class: str = "GoodConnector",
) -> tuple[Counter[str], str]:
    """Run the contract of the broken subject; return how its checks ended, and all of the output."""
    argument = ", server" if fixtures else ""
    text = MODULE.format(
        fixtures=fixtures, connector_class=connector_class, argument=argument, body=body
    )
    (folder / "pytest.ini").write_text(SETTINGS.replace("-q -rs", "-v -rs"))
    (folder / "test_broken.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-k", "TestBroken or options_are_a_model", str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{kits}{os.pathsep}{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # A parameter in the name of a test may be a space.
    line = r"^test_broken\.py::TestBroken::.+? (PASSED|SKIPPED|FAILED|ERROR)\b"
    found = re.findall(line, done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    assert re.search(r"::TestWorking::test_options_are_a_model\S* PASSED", done.stdout)
    return Counter(found), done.stdout


@pytest.mark.parametrize(
    "broken",
    [
        {"fixtures": SERVER},
        {"body": 'raise OSError("no server")'},
        {"body": 'return "no server"'},
        {"body": 'return dataclasses.replace(good_subject(), options={"host": "no server"})'},
    ],
    ids=["wider fixture", "subject", "no subject", "refused options"],
)
def test_a_broken_subject_is_one_error_and_checks_of_the_class_run(
    tmp_path: Path, kits: Path, broken: dict[str, str]
) -> None:
    ended, printed = outcomes(tmp_path, kits, **broken)
    assert (ended["ERROR"], ended["FAILED"]) == (1, 0), printed
    assert ended["PASSED"] >= 30
    assert ended["SKIPPED"] >= 150
    assert "there is no subject: " in printed


def test_without_the_class_its_checks_are_skipped_with_the_rest(tmp_path: Path, kits: Path) -> None:
    ended, printed = outcomes(tmp_path, kits, fixtures=SERVER, connector_class="None")
    assert (ended["ERROR"], ended["FAILED"]) == (1, 0), printed
    assert ended["PASSED"] <= 1

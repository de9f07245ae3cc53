"""Every code block of every page is run, in the page's order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import IN_CI
from tests.docs.blocks import DOCS, ROOT, Block, Runner, Shell, blocks, commands

STEPS = ("start", "source", "options", "methods", "abilities", "publish")
GUIDE = [DOCS / "connector" / f"{name}.md" for name in STEPS]
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
RUN = {"console", "python", "text", "toml"}
DEPLOYED = {"dockerfile", "ini", "nginx", "sh"}  # by tests/field
ENGINES = {"py"}  # by tests/field/test_engines.py
CONFIGURED = {"json"}  # by tests/agents/test_mcp_command.py
BUILT = {"checks", "eval-rst", "options", "toctree"}  # by the build of the site
TESTED = {
    "chat-transcript.txt",
    "chat_client.py",
    "chat_host.py",
    "host.py",
    "service.py",
}  # examples with tests of their own
MOST_LINES = 200

if not IN_CI:
    pytest.importorskip("editables", reason="hatchling needs it to install a distribution in place")


def name(page: Path) -> str:
    return str(page.relative_to(DOCS))


def to_run(page: Path) -> list[Block]:
    """Return the blocks that this module runs."""
    return [block for block in blocks(page) if block.language in RUN and not block.included]


@pytest.mark.parametrize("page", [p for p in PAGES if p not in GUIDE and to_run(p)], ids=name)
def test_what_a_page_shows_works(page: Path, request: pytest.FixtureRequest) -> None:
    if "SHOP_" in page.read_text("utf-8"):
        request.getfixturevalue("shop")
    if "LAKE_" in page.read_text("utf-8"):
        request.getfixturevalue("blobs")
    if "DATASOURCES_URL" in page.read_text("utf-8"):
        request.getfixturevalue("api")
    shell: Shell = request.getfixturevalue("shell")
    with Runner(shell) as runner:
        for block in to_run(page):
            runner.run(block)


@pytest.mark.slow
def test_the_guide_works_from_its_first_step_to_its_last(home: Path, shell: Shell) -> None:
    with Runner(shell, home / "datasources-warehouse") as runner:
        for page in GUIDE:
            for block in to_run(page):
                runner.run(block)


@pytest.mark.soak
@pytest.mark.parametrize("page", GUIDE, ids=name)
def test_each_step_of_the_guide_works(page: Path, home: Path, shell: Shell) -> None:
    project = home / "datasources-warehouse"
    if page != GUIDE[0]:
        write_earlier_steps(page, project, shell)
    with Runner(shell, project) as runner:
        for block in to_run(page):
            runner.run(block)


def write_earlier_steps(page: Path, project: Path, shell: Shell) -> None:
    """Bring a new project to where a page of the guide begins."""
    shell.run("datasources new warehouse && cd datasources-warehouse")
    with Runner(shell, project) as runner:
        for block in (each for earlier in GUIDE[: GUIDE.index(page)] for each in blocks(earlier)):
            if "caption" in block.options:
                runner.run(block)
            elif block.language == "console":
                for command, _ in commands(block):
                    if "sed -i" in command or ">>" in command:
                        assert shell.run(command) == (0, "")
    assert shell.run("pip install -q -e '.[test]'") == (0, "")


def test_the_guide_is_all_of_its_folder() -> None:
    pages = set((DOCS / "connector").glob("*.md"))
    assert set(GUIDE) == pages - {DOCS / "connector" / "objects.md"}  # about one kind of system


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_has_no_block_that_nothing_runs(page: Path) -> None:
    for block in blocks(page):
        assert block.language in RUN | BUILT | DEPLOYED | ENGINES | CONFIGURED, (
            f"{block}: nothing runs {block.language!r}"
        )
        if block.included:
            assert block.included.name in TESTED, f"{block} has no test"
    fences = [line for line in page.read_text("utf-8").splitlines() if line.startswith("```")]
    assert len(fences) == 2 * len(blocks(page)), f"{page}: a block is not closed, or not seen"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_is_short(page: Path) -> None:
    assert len(page.read_text("utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_an_image_that_a_page_shows_is_there(page: Path) -> None:
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).is_file(), f"{page.name} shows {target}, which is missing"


def test_every_page_is_in_the_contents() -> None:
    listed = [
        line
        for block in blocks(DOCS / "index.md")
        if block.language == "toctree"
        for line in block.text.split()
    ]
    assert sorted(listed) == [
        name(page).removesuffix(".md") for page in PAGES if page.stem != "index"
    ]

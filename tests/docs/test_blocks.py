"""What runs the pages' blocks fails where a page is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datasources import OptionError
from tests.docs.blocks import Block, Runner, Shell, blocks
from tests.docs.merging import merge


def block(language: str, text: str, **options: str) -> Block:
    return Block(Path("page.md"), 1, language, None, options, text)


@pytest.fixture
def runner(shell: Shell, home: Path) -> Iterator[Runner]:
    with Runner(shell, home) as runner:
        yield runner


@pytest.mark.parametrize(
    "shown",
    [
        "$ echo a\nb\n",
        "$ echo a\n",
        "$ echo a; false\na\n",
        "$ echo a\nError: a\n",
        "$ echo a\na\nb\n",
        "$ echo a\n...\nb\n",
        "$ echo ab\na\n...\n",
        "a\n",
    ],
)
def test_a_command_that_does_otherwise_than_shown_fails(runner: Runner, shown: str) -> None:
    with pytest.raises(AssertionError):
        runner.run(block("console", shown))


def test_a_command_that_does_as_shown_passes(runner: Runner) -> None:
    runner.run(
        block("console", "$ x=1\n$ echo $x \\\n    2\n1 2\n$ echo one two; cd ..\none ...\n")
    )
    runner.run(block("console", "$ echo 'Error: no' >&2; false\nError: no\n"))
    for shown in ("...\na\nb\n", "a\n...\nb\n", "a\nb\n...\n", "a\n...\n", "...\n", "...a...b\n"):
        runner.run(block("console", f"$ printf 'a\\nb\\n'\n{shown}"))
    runner.run(block("console", "$ echo 'works (30 ms)'\nworks (2 ms)\n"))


def test_python_runs_in_one_namespace_and_prints_what_is_shown(runner: Runner) -> None:
    runner.run(block("python", "import asyncio\nawait asyncio.sleep(0)\nx = 1\n"))
    runner.run(block("python", "print(x)\n"))
    runner.run(block("text", "1\n"))
    with pytest.raises(AssertionError):
        runner.run(block("text", "2\n"))
    with pytest.raises(ZeroDivisionError):
        runner.run(block("python", "x / 0\n"))


@pytest.mark.parametrize("text", ["[pool]\nmax_size = 'x'\n", "[policy]\ncolour = 1\n"])
def test_settings_are_read_as_a_host_reads_them(runner: Runner, text: str) -> None:
    with pytest.raises(OptionError):
        runner.run(block("toml", text))


def test_a_block_of_another_language_fails(runner: Runner) -> None:
    with pytest.raises(AssertionError, match="cannot be run"):
        runner.run(block("cobol", ""))


def test_blocks_are_found_with_their_options(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n\n```{code-block} python\n:caption: src/a.py\n\nx = 1\n```\n\n```toml\n```\n"
    )
    first, second = blocks(page)
    assert (first.line, first.language, first.text) == (3, "python", "x = 1\n")
    assert first.options == {"caption": "src/a.py"}
    assert (second.line, second.language, second.text) == (9, "toml", "")


OLD = '''"""A module."""
from a import b
X = 1

class C:
    y = 1

    def f(self): return 1

    def g(self): return 1
'''


@pytest.mark.parametrize(
    ("new", "has", "lacks"),
    [
        ('"""Another."""\n', ["Another"], ["class C"]),
        ("from a import c\n", ["from a import b, c"], []),
        ("X = 2\n", ["X = 2", "class C"], ["X = 1"]),
        ("Y = 2\n", ["X = 1", "Y = 2"], []),
        ("class C:\n    ...\n    def f(self): return 2\n", ["return 2", "y = 1", "def g"], []),
        ("class C:\n    def f(self): return 2\n", ["return 2"], ["y = 1", "def g"]),
    ],
)
def test_a_change_replaces_what_it_names(new: str, has: list[str], lacks: list[str]) -> None:
    merged = merge(OLD, new)
    compile(merged, "merged", "exec")
    assert all(text in merged for text in has)
    assert not any(text in merged for text in lacks)

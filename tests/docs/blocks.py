"""The code blocks of a page, and how each kind of them is run."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import subprocess
import threading
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasources.config import read_settings
from tests.docs.merging import merge

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"

_FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL
)
_OPTION = re.compile(r"^:([\w-]+):[ ]?(.*)\n", re.MULTILINE)
_DONE = "\x1e"
_LONGEST = 120.0  # seconds that one command may take
_PASSING = (  # what differs from run to run, as it is shown and as it may be
    (r"\d+(?:\.\d+)? ms", "milliseconds"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", "a moment"),
    (r"in \d+\.\d+s(?: \(\d+:\d\d:\d\d\))?", "a duration"),
    (r" {2,}", "  "),  # the width of a column
)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    language: str
    """As after the fence; of `{code-block} python`, python."""
    included: Path | None
    """The file that its text is, where it says no place for it: one that has its own test."""
    options: Mapping[str, str]
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in their order."""
    text = page.read_text("utf-8")
    return [_block(page, text, match) for match in _FENCE.finditer(text)]


def python_blocks(page: Path) -> list[str]:
    """Return the Python of a page, block by block."""
    return [block.text for block in blocks(page) if block.language == "python"]


def _block(page: Path, text: str, match: re.Match[str]) -> Block:
    line = text.count("\n", 0, match.start()) + 1
    info, body = match["info"].strip(), match["body"]
    if info[:1] != "{":
        return Block(page, line, info, None, {}, body)
    directive, _, argument = info[1:].partition("}")
    options = {key: value.strip('"') for key, value in _OPTION.findall(body)}
    body = _OPTION.sub("", body).removeprefix("\n")
    if directive == "literalinclude":
        path = page.parent / argument.strip()
        included = None if "caption" in options else path
        return Block(page, line, "python", included, options, path.read_text("utf-8"))
    language = argument.strip() if directive == "code-block" else directive
    return Block(page, line, language, None, options, body)


class Shell:
    """A shell that runs the commands of a page one by one, its state kept between them."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate("exit 0\n")

    def run(self, command: str) -> tuple[int, str]:
        """Run a command; return its exit code and what it prints on both streams."""
        typed, shown = self._process.stdin, self._process.stdout
        assert typed
        assert shown
        typed.write(f"{{ {command}\n}} </dev/null; printf '{_DONE}%s\\n' $?\n")
        typed.flush()
        output = ""
        alarm = threading.Timer(_LONGEST, self._process.kill)
        alarm.start()
        try:
            for line in shown:
                before, done, code = line.partition(_DONE)
                output += before
                if done:
                    return int(code), output
        finally:
            alarm.cancel()
        raise AssertionError(f"the shell ended, or took too long, in {command!r}:\n{output}")

    def directory(self) -> Path:
        """Return where the shell is now."""
        return Path(self.run("pwd")[1].strip())


class Runner:
    """Runs the blocks of a page: Python in one namespace and loop, commands in one shell."""

    def __init__(self, shell: Shell, project: Path | None = None) -> None:
        self._shell = shell
        self._project = project
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._loop = asyncio.Runner()
        self._printed = ""

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.close()

    @property
    def names(self) -> Mapping[str, Any]:
        """What the Python of the page has defined so far."""
        return self._names

    def run(self, block: Block) -> None:
        """Run a block; its failure is an AssertionError, or what its code raises."""
        if "caption" in block.options:
            return self._write(block)
        kind = getattr(self, f"_run_{block.language}", None)
        assert kind, f"{block}: blocks of {block.language!r} cannot be run"
        kind(block)
        return None

    def _write(self, block: Block) -> None:
        """Put a block where its caption says, in place of what has the same names there."""
        assert self._project, f"{block}: this page is about no project"
        file = self._project / block.options["caption"]
        old = file.read_text("utf-8") if file.exists() else ""
        file.write_text(merge(old, block.text) if file.suffix == ".py" else block.text, "utf-8")

    def _run_python(self, block: Block) -> None:
        source = "\n" * block.line + block.text
        code = compile(source, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if code.co_flags & inspect.CO_COROUTINE:
                self._loop.run(eval(code, self._names))
            else:
                exec(code, self._names)
        self._printed = printed.getvalue()

    def _run_text(self, block: Block) -> None:
        """Compare with what the Python before has printed."""
        compare(block, block.text, self._printed)

    def _run_console(self, block: Block) -> None:
        for command, expected in commands(block):
            code, output = self._shell.run(command)
            compare(block, expected, output, command)
            failed = "Error: " in expected
            assert (code != 0) is failed, f"{block}: {command!r} ended with {code}:\n{output}"

    def _run_toml(self, block: Block) -> None:
        if {"audit_log", "sources", "policy", "pool", "server", "gateway"} & tomllib.loads(
            block.text
        ).keys():
            file = self._shell.directory() / "block.toml"
            file.write_text(block.text, "utf-8")
            read_settings(file, {})
            file.unlink()


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block and the output shown below it."""
    first, *found = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not first.strip(), f"{block}: it starts with no command"
    for each in found:
        command, _, output = re.sub(r"\\\n\s*", "", each).partition("\n")
        yield command, output


def compare(block: Block, expected: str, output: str, command: str = "") -> None:
    """Make sure that an output is the one shown.

    There `...` stands for anything; on a line of its own, for any number of lines.
    """
    for passing, meaning in _PASSING:
        expected, output = (re.sub(passing, meaning, text) for text in (expected, output))
    pattern = r"[\s\S]*?".join(map(re.escape, f"\n{expected.strip()}\n".split("...")))
    pattern = pattern.replace("\\\n[\\s\\S]*?\\\n", r"\n(?:[\s\S]*?\n)?")
    assert re.fullmatch(pattern, f"\n{output.strip()}\n"), (
        f"{block}: {command}\nprinted:\n{output}\ninstead of:\n{expected}"
    )


def environment(home: Path, tools: Path) -> dict[str, str]:
    """Return the environment of a reader at a shell, with `tools` first on the path."""
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    # pip works without an index: what a page tells to install is there.
    pip = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return kept | pip | {"HOME": str(home), "PATH": path, "COLUMNS": "100"}

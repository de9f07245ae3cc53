"""Write the distribution of a new connector, which works and which its author then changes."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Collection, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from datasources.errors import OptionError

_NAME = re.compile(r"(?=.{1,26}$)[a-z][a-z0-9]*(_[a-z0-9]+)*")
_SUFFIX = ".tmpl"  # so that tools do not read the templates as code of this package


def create(name: str, into: str | os.PathLike[str] = ".", *, taken: Collection[str] = ()) -> Path:
    """Write the distribution of a connector; return its directory, which is new.

    Args:
        name: The connector type.
        into: The directory above, made if missing.
        taken: Names of the connector types that exist already.

    Raises:
        OptionError: The name is malformed or taken, or the directory exists.
    """
    check_name(name, taken)
    distribution = f"datasources-{name.replace('_', '-')}"
    target = Path(into, distribution).absolute()
    if os.path.lexists(target):
        raise OptionError(f"{str(target)!r} exists already; give another name or directory")
    words = {
        "type": name,
        "class": "".join(part.title() for part in name.split("_")),
        "title": name.replace("_", " ").capitalize(),
        "distribution": distribution,
        "package": f"datasources_{name}",
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when complete, so that an interruption leaves no part of a distribution.
    with tempfile.TemporaryDirectory(prefix=f".{distribution}-", dir=target.parent) as temporary:
        complete = Path(temporary, distribution)
        for path, text in _rendered(words):
            file = complete / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        complete.rename(target)
    return target


def check_name(name: str, taken: Collection[str] = ()) -> None:
    """Check the name of a new connector.

    Raises:
        OptionError: The name is malformed or taken.
    """
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"{name!r} cannot be the name of a connector; one is lower-case letters and digits, "
            "words separated by single underscores, 26 characters at most"
        )
    if name in taken:
        raise OptionError(
            f"there is a connector {name!r} already; taken: {', '.join(sorted(taken))}"
        )


def _rendered(words: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield path and content of every file, with `__word__` replaced in both."""

    def fill(text: str) -> str:
        for word, value in words.items():
            text = text.replace(f"__{word}__", value)
        return text

    for path, text in _templates(files("datasources") / "scaffold_files", ""):
        yield fill(path).removesuffix(_SUFFIX), fill(text)


def _templates(folder: Traversable, path: str) -> Iterator[tuple[str, str]]:
    """Yield path and content of every template in a folder and below it."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _templates(entry, f"{path}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            yield f"{path}{entry.name}", entry.read_text("utf-8")

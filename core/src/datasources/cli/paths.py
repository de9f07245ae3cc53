"""Check and expand the paths that the command line is given."""

from __future__ import annotations

import os
from collections.abc import Mapping

from datasources.errors import OptionError, StoreError


def exists(path: str) -> bool:
    """Return True if a file exists, also if it is no regular file, such as a pipe.

    `os.path.exists` is also False for a file that cannot be reached; taking that for a file that
    does not exist would show a store as empty and a key as lost.

    Raises:
        OSError: The path cannot be reached, such as for lack of permission.
    """
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def home_directory(environ: Mapping[str, str] = os.environ) -> str:
    """Return the user's home directory: `HOME`, or that of the user database.

    An empty or relative `HOME` is ignored: it would put files into the root or the working
    directory.

    Raises:
        OptionError: There is none, as in a container that runs as an unknown user.
    """
    import pwd

    home = environ.get("HOME", "")
    if os.path.isabs(home):
        return home
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = ""
    if not os.path.isabs(home):
        raise OptionError("this user has no home directory; set HOME, or give absolute paths")
    return home


def expand(path: str) -> str:
    """Return a path with a leading `~` or `~user` expanded.

    Shells expand it in few places (not in `--store=~/x`), and the authors of service and `.env`
    files expect it to work there, too. A `~name` without such a user stays a name, as in
    `~$report.docx`.

    Raises:
        OptionError: There is no home directory.
    """
    if path == "~" or path.startswith("~/"):
        return home_directory() + path[1:]
    return os.path.expanduser(path)


def expand_store(url: str) -> str:
    """Return the URL or path of a store with a leading `~` of its path expanded."""
    prefix = next((p for p in ("sqlite:///", "sqlite:") if url.startswith(p)), "")
    path = url.removeprefix(prefix)
    return prefix + expand(path) if path.startswith("~") else url


def store_file(url: str) -> str | None:
    """Return the path of a SQLite store, from a path or a URL; None for all other stores.

    The forms are those of SQLAlchemy: `sqlite:///relative` and `sqlite:////absolute`.

    Raises:
        StoreError: The URL names a host, a database in memory or parameters.
    """
    if url.lower().startswith("memory:") or ":memory:" in url:
        raise StoreError(f"{url!r} is no store: in memory it would end with the command")
    scheme, separator, rest = url.partition(":")
    if scheme != "sqlite":
        return url if not separator or "/" in scheme else None
    path = rest.removeprefix("///")
    if path.startswith("//") and not rest.startswith("///"):
        raise StoreError(
            f"{url!r} is no store: a file is given as sqlite:///relative or sqlite:////absolute"
        )
    if not path or "?" in path:
        problem = "it has parameters, which are not supported" if path else "it names no file"
        raise StoreError(f"{url!r} is no store: {problem}")
    return path

"""The `datasources` command; the extra `cli` installs the libraries that it needs."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line on `sys.argv`; return the exit code."""
    from importlib.util import find_spec

    _leave_ascii()
    _fill_closed_descriptors()
    if missing := [name for name in ("click", "rich") if find_spec(name) is None]:
        sys.stderr.write(
            f"Error: the command line needs {' and '.join(missing)}: "
            'pip install "datasources[cli]"\n'
        )
        return 1
    try:
        if sys.argv[1:] == ["plugins"]:
            from datasources.cli.listing import print_plain

            if print_plain():
                return 0
        from datasources.cli.app import cli

        return cli.run()
    except KeyboardInterrupt:  # during the imports, before `Group.main` can report it
        sys.stderr.write("Interrupted.\n")
        return 130


def _fill_closed_descriptors() -> None:
    """Put /dev/null in place of standard streams that the caller has closed.

    The next files to be opened, such as a store, would have their numbers, and get what libraries
    and other processes write there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _leave_ascii() -> None:
    """Start this process anew in Python's UTF-8 mode, if names of files are ASCII to it.

    Python has UTF-8 mode on in the locales C and POSIX, but not with `PYTHONUTF8=0`. Arguments that
    are not ASCII are damaged then, and files whose names are not ASCII cannot be opened.
    """
    if sys.getfilesystemencoding() != "ascii" or "utf8" in sys._xoptions or not sys.executable:
        return
    if not getattr(sys, "frozen", False):  # a program made by PyInstaller has other arguments
        arguments = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execv(sys.executable, arguments)  # noqa: S606  (the same program, with its arguments)

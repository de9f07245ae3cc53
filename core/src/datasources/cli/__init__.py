"""The `datasources` command; the extra `cli` installs the libraries that it needs."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line on `sys.argv`; return the exit code."""
    from importlib.util import find_spec

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

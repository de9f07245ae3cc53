"""The files of a Python interpreter that code in a sandbox needs."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache

from datasources_agents.sandbox.environment import scrubbed_environment
from datasources_agents.sandbox.errors import SandboxUnavailableError

# Of a prefix, and not all of it: a virtual environment may share its folder with a project.
_PARTS = ("bin", "lib", "lib64", "pyvenv.cfg")
_SYSTEM = (
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/share/fonts",
    "/usr/share/zoneinfo",
    "/etc/fonts",
    "/etc/ld.so.cache",
)
_LINKS = ("/bin", "/lib", "/lib32", "/lib64")
_QUESTION = "import json, sys; print(json.dumps([sys.executable, sys.prefix, sys.base_prefix]))"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python interpreter, and the paths that it needs."""

    executable: str
    paths: tuple[str, ...]
    """Files and folders to show read-only at their own paths."""
    links: tuple[tuple[str, str], ...]
    """Symbolic links of the system: where each stands, and where it leads."""


@lru_cache(maxsize=16)
def find_interpreter(executable: str) -> Interpreter:
    """Return the interpreter at a path.

    Raises:
        SandboxUnavailableError: It cannot be run.
    """
    try:
        answer = subprocess.run(  # noqa: S603  (a path of the host's)
            [executable, "-I", "-c", _QUESTION],
            env=scrubbed_environment(),
            capture_output=True,
            check=True,
            timeout=30,
        ).stdout
        found = json.loads(answer)
    except (OSError, ValueError, subprocess.SubprocessError):
        raise SandboxUnavailableError(f"{executable!r} is no Python that can be run") from None
    real_folder = os.path.dirname(os.path.realpath(found[0]))
    prefixes = dict.fromkeys([*found[1:], os.path.dirname(real_folder)])
    parts = [os.path.join(prefix, part) for prefix in prefixes for part in _PARTS]
    links = [path for path in _LINKS if os.path.islink(path)]
    folders = [path for path in _LINKS if path not in links]
    paths = dict.fromkeys([*_SYSTEM, *folders, *parts])
    return Interpreter(
        found[0],
        tuple(path for path in paths if os.path.exists(path)),
        tuple((path, os.readlink(path)) for path in links),
    )

"""nginx from Debian's package, in front of another server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.debian import NGINX, require
from tests.servers.process import Server


class NginxServer(Server):
    """One process of nginx.

    Args:
        site: A `server` block of its configuration.
        replaced: What is replaced in it, such as the paths of files; `PORT` in a value stands for
            the port of this server.
    """

    name = "nginx"

    def __init__(self, site: str, replaced: Mapping[str, str]) -> None:
        super().__init__()
        self._site = site
        self._replaced = replaced

    def _prepare(self) -> None:
        require(NGINX)
        site = self._site
        for old, new in self._replaced.items():
            assert old in site, f"the site has no {old!r}"
            site = site.replace(old, new.replace("PORT", str(self.port)))
        paths = "".join(
            f"{kind}_temp_path {self.directory / kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self._configuration.write_text(
            "daemon off;\nmaster_process off;\nerror_log stderr;\n"
            f"pid {self.directory / 'nginx.pid'};\nevents {{}}\n"
            f"http {{\naccess_log off;\n{paths}{site}}}\n"
        )

    def _command(self) -> Sequence[str | Path]:
        return [NGINX, "-p", self.directory, "-c", self._configuration]

    @property
    def _configuration(self) -> Path:
        return self.directory / "nginx.conf"

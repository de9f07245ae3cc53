"""Services that speak the protocol of S3, from PyPI: SeaweedFS, and moto, which is of another make."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.servers.process import HOST, Server, ServerError, accepts, free_port

REGION = "us-east-1"
_OTHERS = ("master", "volume", "filer")


class S3Server(Server):
    """A service with one access key."""

    def __init__(self) -> None:
        super().__init__()
        self.access_key_id = f"AKIA{secrets.token_hex(8).upper()}"
        self.secret_access_key = secrets.token_urlsafe(30)

    @property
    def endpoint(self) -> str:
        """The URL of the service, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    @property
    def options(self) -> dict[str, str]:
        """The options of a source, but for the bucket."""
        return {
            "endpoint": self.endpoint,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
        }

    def client(self) -> Any:
        """Return the client of boto3, to prepare and to compare with; close it."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            config=Config(
                s3={"addressing_style": "path"}, retries={"total_max_attempts": 5}, read_timeout=30
            ),
        )


class SeaweedServer(S3Server):
    """SeaweedFS, with its S3 gateway and, on another port, its WebDAV gateway."""

    name = "seaweedfs"
    # SIGTERM ends it after 15 seconds, which is later than `stop` waits.
    stop_signal = signal.SIGKILL

    def __init__(self) -> None:
        super().__init__()
        self._ports: dict[str, int] = {}

    @property
    def webdav_url(self) -> str:
        """The URL of the root of all files, a folder `buckets` among them."""
        return f"http://{HOST}:{self._ports['webdav']}/"

    def _prepare(self) -> None:
        names = [*(f"{name}.port" for name in _OTHERS), "webdav"]
        names += [f"{name}.port.grpc" for name in (*_OTHERS, "s3")]
        ports: set[int] = set()
        while len(ports) < len(names):
            ports |= {free_port()} - {self.port}
        self._ports = dict(zip(names, ports, strict=True))
        key = {"accessKey": self.access_key_id, "secretKey": self.secret_access_key}
        identity = {"name": "tests", "credentials": [key], "actions": ["Admin"]}
        (self.directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (self.directory / "data").mkdir()

    def _command(self) -> Sequence[str | Path]:
        ports = {f"-{name}": port for name, port in self._ports.items() if name != "webdav"}
        return [
            _program("weed"),
            "server",
            "-dir=data",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            "-s3",
            f"-s3.port={self.port}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.config=s3.json",
            "-webdav",
            f"-webdav.port={self._ports['webdav']}",
            "-volume.max=1000",  # each bucket takes seven volumes, and each test makes a bucket
            "-master.volumeSizeLimitMB=64",
            *(f"{option}={port}" for option, port in ports.items()),
        ]

    def _ready(self) -> bool:
        if not all(map(accepts, (self.port, self._ports["webdav"]))):
            return False
        with closing(self.client()) as client:
            try:
                client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="ready", Body=b"ready")
            except Exception:  # noqa: BLE001  (whatever the gateway raises before its volumes are up)
                return False
        return True


class MotoServer(S3Server):
    """The AWS services of moto in memory; it checks no signature."""

    name = "moto"

    def _prepare(self) -> None:
        """Prepare nothing: it keeps everything in memory."""

    def _command(self) -> Sequence[str | Path]:
        return [_program("moto_server"), "-H", HOST, "-p", str(self.port)]


def _program(name: str) -> Path:
    beside = Path(sys.executable).with_name(name)
    if beside.exists():
        return beside
    if path := shutil.which(name):
        return Path(path)
    raise ServerError(f"{name} is not installed")

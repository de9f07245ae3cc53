"""A connector for tests of the command line, installed as a distribution of its own.

The identifier chooses its behaviour. Its errors and logs hold its secrets, as those of a careless
author would.
"""

from __future__ import annotations

from pathlib import Path

from tests.core.plugin_fixtures import Site

PLUGIN = """
from datasources import hookimpl

@hookimpl
def datasources_connectors():
    from vault_connector import VaultConnector
    return [VaultConnector]
"""

CONNECTOR = r"""
import asyncio, logging, sys
from typing import Literal
from pydantic import AliasChoices, BaseModel, Field, SecretStr, field_validator, model_validator
from datasources import (
    AuthenticationError, ColumnStatistics, ConnectError, ConnectorOptions, DataFetchError, DataItem,
    DataSourceConnector, DataSourceExistsError, ItemNotFoundError, Preview, Workspace,
)

HOSTILE = "\x1b[2Jnam\u202ee\udc80\n\x9b31m"


class Tls(BaseModel):
    key: SecretStr


class VaultOptions(ConnectorOptions):
    sample_identifiers = (("doc", "a document"),)
    host: str = Field(description="Where it is.", examples=["vault.example.com"])
    token: SecretStr = Field(
        description="Lets you in.", validation_alias=AliasChoices("token", "api_token")
    )
    port: int = Field(1, ge=1, description="Which port.")
    level: Literal["low", "high"] = Field("low", description="How far to look.")
    tags: list[str] = Field([], description="Which ones.", examples=[["a", "b"]])
    verify: bool = Field(True, description="Whether to look twice.")
    tls: Tls | None = Field(None, description="The key of a certificate.")

    @field_validator("host")
    @classmethod
    def _check_host(cls, value):
        if " " in value:
            raise ValueError("a host has no blanks")
        return value

    @field_validator("token")
    @classmethod
    def _check_token(cls, value):
        if value.get_secret_value().startswith("bad"):
            raise ValueError(f"the token {value.get_secret_value()!r} is none")
        return value

    @model_validator(mode="after")
    def _check_together(self):
        if self.level == "high" and self.port == 1:
            raise ValueError("this 'level' needs another 'port'")
        return self

    def hosts(self):
        return [self.host]

    def destination(self):
        return {"host": self.host, "port": self.port, "verify": self.verify}


class VaultConnector(DataSourceConnector):
    type = "vault"
    options_class = VaultOptions
    options: VaultOptions

    async def connect(self):
        token = self.options.token.get_secret_value()
        logging.getLogger("vault").warning("connecting with %s", token)
        if self.options.host == "nowhere":
            raise ConnectError(f"'nowhere' cannot be reached with {token}")
        if token.startswith("wrong"):
            raise AuthenticationError(f"the token {token} is refused", code="401")
        self._connection = token
        return True

    async def disconnect(self):
        self._connection = None

    async def test_connection(self):
        return True

    async def list_items(self, path=None):
        if path == "wait/":
            await asyncio.sleep(60)
        if path == "many":
            return [DataItem(f"item{n}", f"item{n}", n) for n in range(2500)]
        return [
            DataItem("doc", "doc", 4, 0.0),
            DataItem(HOSTILE, HOSTILE, None, 1e300, {"kind": HOSTILE}),
        ]

    async def fetch_data(self, identifier, workspace):
        await self._behave(identifier)
        with Workspace.of(workspace).create("doc.txt", size=12) as file:
            for _ in range(3):
                file.write(b"data")
                if identifier == "steps":
                    await asyncio.sleep(0.3)
            if identifier == "long":
                file.rows, file.truncated = 3, True
        return file.path

    async def get_metadata(self, identifier):
        await self._behave(identifier)
        return {
            "kind": "document", HOSTILE: HOSTILE, "size": 4, "modified_at": 0.0, "none": None,
            "flag": True, "list": ["a", HOSTILE], "nested": {"a": 1},
            "columns": [{"name": "x", "type": "int"}, {"name": HOSTILE, "nullable": True}],
        }

    async def preview(self, identifier, rows=10):
        await self._behave(identifier)
        return Preview(("a", "a", HOSTILE), [(1, None, HOSTILE), (float("nan"), b"\x00", "x")], False)

    async def statistics(self, identifier):
        await self._behave(identifier)
        if identifier == "text":
            return {}
        return {"x": ColumnStatistics(3, 0, 1, 5, 2.5, sampled=True)}

    async def upload_file(self, local_path, blob_name=None, overwrite=True):
        if not overwrite:
            raise DataFetchError("it is there already")
        return DataItem("x", blob_name or "x")

    async def _behave(self, identifier):
        token = self._connection
        if identifier == "missing":
            raise ItemNotFoundError("there is no 'missing'")
        if identifier == "leak":
            raise DataFetchError(f"failed at {HOSTILE}\nwith {token!r}")
        if identifier == "chained":
            raise DataFetchError("failed") from ValueError(f"low level {token}")
        if identifier.startswith("quote "):
            raise DataFetchError("the server said: " + identifier.removeprefix("quote "))
        if identifier == "bug":
            raise TypeError(f"cannot add {token}")
        if identifier == "exit":
            sys.exit(f"bye {token}")
        if identifier == "pipe":
            raise BrokenPipeError(32, "Broken pipe")
        if identifier == "refused":
            raise ConnectionRefusedError(111, "Connection refused")
        if identifier == "interrupt":
            raise KeyboardInterrupt
        if identifier == "slow":
            print("waiting", file=sys.stderr, flush=True)
            await asyncio.sleep(60)
"""

COMMANDS = '''
import click
from datasources import hookimpl

@hookimpl
def datasources_commands(group):
    @group.command("hello")
    @click.argument("name")
    def hello(name):
        """Greet."""
        if name == "nobody":
            raise ValueError("nobody is here")
        click.echo(f"hello {name}")
'''


def install_vault(site: Site) -> None:
    """Install the connector as pip would."""
    site.connector("datasources-vault", "vault", PLUGIN)
    (Path(site.path) / "vault_connector.py").write_text(CONNECTOR, "utf-8")

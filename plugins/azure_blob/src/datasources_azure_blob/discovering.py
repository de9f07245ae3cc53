"""List the containers of an account before a source exists."""

from __future__ import annotations

from collections.abc import Callable
from xml.parsers.expat import ExpatError, ParserCreate

from datasources import ConnectError
from datasources_azure_blob.options import AzureBlobOptions
from datasources_azure_blob.service import BlobService

_MOST = 1000  # names; more are no choice for a person


async def discover(
    options: AzureBlobOptions, check_address: Callable[[str], None]
) -> dict[str, list[str]]:
    """Return the names of containers; credentials for a single container may not list them.

    Raises:
        ConnectError, AuthenticationError, PermissionDeniedError: As for connecting a source.
    """
    service = BlobService(options, connections=1, check_address=check_address)
    service.use_account()
    await service.open()
    try:
        _, body = await service.read("GET", query={"comp": "list", "maxresults": str(_MOST)})
    finally:
        await service.close()
    try:
        return {"container": _names(body)}
    except ExpatError as exc:
        raise ConnectError("the list of containers is not XML") from exc


def _names(body: bytes) -> list[str]:
    """Return the texts of `EnumerationResults/Containers/Container/Name`."""
    names: list[str] = []
    path: list[str] = []
    parser = ParserCreate()
    parser.buffer_text = True

    def start(tag: str, _: dict[str, str]) -> None:
        path.append(tag)

    def end(_: str) -> None:
        path.pop()

    def text(data: str) -> None:
        if path[1:] == ["Containers", "Container", "Name"]:
            names.append(data)

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text
    parser.Parse(body, True)
    return names

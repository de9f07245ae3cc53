"""Options that every object store has: a folder of it, and limits of its transfers."""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic.fields import FieldInfo

from datasources.option_types import Option
from datasources.options import ConnectorOptions

MIB = 1024 * 1024


class ObjectStoreOptions(ConnectorOptions):
    """Base of the options of an object store; those of a subclass come first in templates."""

    prefix: str = Field(
        "",
        description="A folder of the store: the source is what lies below it, and names start "
        "there. Slashes around it are ignored.",
        examples=["exports/2024"],
    )
    connect_timeout: float = Option(
        10.0,
        gt=0,
        help="Seconds to reach the service.",
        examples=[10],
        group="Transfer",
        advanced=True,
    )
    read_timeout: float = Option(
        30.0,
        gt=0,
        help="Seconds without a byte after which a read fails.",
        examples=[30],
        group="Transfer",
        advanced=True,
    )
    retries: int = Option(
        6,
        ge=0,
        le=100,
        help="Further attempts of one request that failed in passing; the pause doubles, "
        "from 0.1 s on.",
        examples=[6],
        group="Transfer",
        advanced=True,
    )
    retry_timeout: float = Option(
        60.0,
        ge=0,
        help="Seconds after which one request is not attempted again.",
        examples=[60],
        group="Transfer",
        advanced=True,
    )
    concurrency: int = Option(
        4,
        ge=1,
        le=64,
        help="Parts of one large object on their way at once.",
        examples=[4],
        group="Transfer",
        advanced=True,
    )
    chunk_size: int = Option(
        8 * MIB,
        ge=64 * 1024,
        le=1024 * MIB,
        help="Bytes of one part; an object of this size or less is a single request.",
        examples=[8 * MIB],
        group="Transfer",
        advanced=True,
    )

    @classmethod
    def fields(cls) -> list[tuple[str, FieldInfo]]:
        """Return name and field of every option: those of the subclass before the common ones."""
        inherited = ObjectStoreOptions.model_fields
        return sorted(super().fields(), key=lambda field: field[0] in inherited)

    @field_validator("prefix")
    @classmethod
    def _end_prefix(cls, value: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("it is not Unicode text, as the name of every object is") from None
        folder = value.strip("/")
        return f"{folder}/" if folder else ""

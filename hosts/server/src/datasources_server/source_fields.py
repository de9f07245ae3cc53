"""Parts of a source in requests: limits, and stored queries with their parameters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_Whole = Annotated[int, Field(ge=0, strict=True)]
_Seconds = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
_Text = Annotated[str, Field(min_length=1)]


class LimitsFields(BaseModel):
    """Limits of each fetch from a source; null is no limit."""

    model_config = ConfigDict(extra="forbid")

    max_bytes: _Whole | None = None
    max_rows: _Whole | None = None
    timeout: _Seconds | None = None


class ParameterFields(BaseModel):
    """A parameter of a stored query; `null` stands for what holds without the field."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "integer", "number", "boolean", "date", "timestamp"] | None = None
    required: Annotated[bool, Field(strict=True)] | None = None
    default: Any = None
    description: str | None = None
    choices: list[Any] | None = None


class QueryFields(BaseModel):
    """A stored query: its text with `:name` for the values of parameters."""

    model_config = ConfigDict(extra="forbid")

    text: _Text
    parameters: dict[str, ParameterFields] = {}
    description: str = ""


class QueryPatch(BaseModel):
    """Changes of a stored query, or a new one; `null` removes."""

    model_config = ConfigDict(extra="forbid")

    text: _Text | None = None
    parameters: dict[str, ParameterFields | None] | None = None
    description: str | None = None

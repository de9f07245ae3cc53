"""The options of a PostgreSQL source, and the connection parameters that they give to libpq."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from datasources import ConnectorOptions, Option, OptionError

# The parameters that a connection string may have. Left out are those that name a service file, a
# password file or a key log on the host's disk, or that change the protocol.
_DSN_KEYWORDS = frozenset(
    {
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "connect_timeout",
        "options",
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslcrl",
        "sslsni",
        "sslnegotiation",
        "channel_binding",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "client_encoding",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
        "target_session_attrs",
        "load_balance_hosts",
        "fallback_application_name",
        "gssencmode",
    }
)
_KEYWORD_OF_FIELD = {
    "host": "host",
    "port": "port",
    "database": "dbname",
    "user": "user",
    "application_name": "application_name",
    "connect_timeout": "connect_timeout",
    "sslmode": "sslmode",
    "sslrootcert": "sslrootcert",
    "sslcert": "sslcert",
    "sslkey": "sslkey",
}
_SSL_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
# Parameters that are secrets, or decide neither who answers nor who can read what is sent.
_NO_DESTINATION = frozenset(
    {
        "password",
        "sslpassword",
        "sslcert",
        "sslkey",
        "application_name",
        "fallback_application_name",
        "client_encoding",
        "connect_timeout",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
    }
)

# The values that libpq takes; it would refuse others not before it connects.
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_DSN_CHOICES = {
    "sslmode": _SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "target_session_attrs": (
        "any",
        "read-write",
        "read-only",
        "primary",
        "standby",
        "prefer-standby",
    ),
    "load_balance_hosts": ("disable", "random"),
}
_MAX_PORT = 65535

_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.:-]*://")
# `name = value` of a connection string, the value perhaps in single quotes.
_PARAMETER = re.compile(
    r"(?<![^\s='])([^\s=]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s\\]|\\.)*)", re.DOTALL
)
_MAX_DSN = 8192  # characters; the longest ones in use have a few hundred
_SEMICOLONS = re.compile(r"[\w ]+=[^;=]*;[\w ]+=")
# Names of parameters are of letters, as in other drivers; what else stands there may be a secret.
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z_]*")

# A path that cannot exist. libpq ignores a missing file, but refuses one that is not a file.
_NO_SUCH_FILE = "/dev/null/none"
# Values for the parameters that libpq would otherwise take from the environment or the home
# directory of the host.
_NEUTRAL_VALUES = {
    "options": "",
    "password": "",
    "passfile": _NO_SUCH_FILE,
    "hostaddr": "",
    "sslcert": _NO_SUCH_FILE,
    "sslkey": _NO_SUCH_FILE,
    "sslrootcert": _NO_SUCH_FILE,
    "sslcrl": "",
    "sslcrldir": "",
    "ssl_max_protocol_version": "",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
    "requirepeer": "",
    "require_auth": "!gss,!sspi",
    "gssencmode": "disable",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}


def _split_names(value: Any) -> Any:
    if isinstance(value, str):
        # Not at the commas between the types of a function's arguments.
        parts = re.split(r",(?![^()]*\))", value)
        return tuple(part.strip() for part in parts if part.strip())
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split_names)]
"""A list of names, or one string with commas."""


class PostgreSQLOptions(ConnectorOptions):
    """The database, the role that reads it, and the schemas and functions that may be used."""

    sample_identifiers: ClassVar[tuple[tuple[str, str], ...]] = (
        ("public.orders", "a table or view, whole"),
        ('public."Order Lines"', "one whose name needs quotes, as the listing shows it"),
        ("SELECT status, count(*) FROM orders GROUP BY status", "the result of a query"),
    )

    alternatives: ClassVar[tuple[tuple[str, ...], ...]] = (("dsn",), ("host", "database", "user"))
    alternatives_overlap: ClassVar[bool] = True  # the options override the connection string

    # Every server has this one, unless somebody has dropped it.
    discover_defaults: ClassVar[Mapping[str, Any]] = {"database": "postgres"}

    host: str | None = Field(
        default=None,
        description="Server name or address, several separated by commas, or a socket directory.",
        examples=["db.example.com"],
    )
    port: int | None = Field(
        default=None, ge=1, le=65535, description="Server port; 5432 if not given.", examples=[5432]
    )
    database: str | None = Option(
        None,
        validation_alias=AliasChoices("database", "dbname"),
        discovered=True,
        help="Name of the database.",
        examples=["sales"],
    )
    user: str | None = Field(
        default=None,
        validation_alias=AliasChoices("user", "username"),
        description="Role to log in as; one with no more rights than to read.",
        examples=["reader"],
    )
    password: SecretStr | None = Field(
        default=None, description="Password of the role.", examples=["${env:SALES_PASSWORD}"]
    )
    dsn: SecretStr | None = Field(
        default=None,
        title="Connection string",
        validation_alias=AliasChoices("dsn", "connection_string"),
        description=(
            "A libpq connection string or URL instead; the options above override it. A "
            "connect_timeout of 0 in it stands for the limit of the host's pool."
        ),
        examples=["postgresql://reader:password@db.example.com:5432/sales"],
    )
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = (
        Option(
            default=None,
            label="TLS mode",
            group="TLS",
            help="Encryption: 'require' encrypts, 'verify-full' also checks who answers.",
            examples=["verify-full"],
        )
    )
    sslrootcert: str | None = Option(
        default=None,
        label="Trusted certificates",
        help="File of trusted certificate authorities; 'system' takes the system's.",
        examples=["/etc/ssl/certs/db-ca.pem"],
        group="TLS",
        advanced=True,
    )
    sslcert: str | None = Option(
        default=None,
        label="Client certificate",
        help="File of the client certificate.",
        examples=["/etc/ssl/me.crt"],
        group="TLS",
        advanced=True,
    )
    sslkey: str | None = Option(
        default=None,
        label="Key of the client certificate",
        help="File of the client certificate's key.",
        examples=["/etc/ssl/private/me.key"],
        group="TLS",
        advanced=True,
    )
    application_name: str | None = Option(
        default=None,
        help="How the sessions call themselves to the server; 'datasources' if not given.",
        examples=["sales-report"],
        group="Session",
        advanced=True,
    )
    connect_timeout: float | None = Option(
        default=None,
        gt=0,
        help="Seconds for one attempt to connect; if not given, what the host's pool says.",
        examples=[10.0],
        group="Session",
        advanced=True,
    )
    statement_timeout: float = Option(
        default=300.0,
        gt=0,
        le=86_400,
        help=(
            "Seconds after which the server ends a statement. If it is not given, a shorter timeout of "
            "the role or the database holds."
        ),
        examples=[60.0],
        group="Session",
        advanced=True,
    )
    schemas: Names = Option(
        (),
        discovered=True,
        help="Schemas to list; all but the system's if not given.",
        examples=[["public", "sales"]],
    )
    search_path: Names = Option(
        default=(),
        help="Schemas searched for unqualified names; the role's own if not given.",
        examples=[["sales", "public"]],
        group="Session",
        advanced=True,
    )
    read_only: bool = Option(
        default=True,
        help="Refuse whatever is not a read; false lets queries change the database.",
        examples=[True],
        group="Safety",
        advanced=True,
    )
    allow_privileged_role: bool = Option(
        default=False,
        help="Accept a superuser, or a role that may use the server's files and programs.",
        examples=[False],
        group="Safety",
        advanced=True,
    )
    allowed_functions: Names = Option(
        default=(),
        help=(
            "Volatile functions that queries may call although nobody knows what they do: a name, "
            "with or without its schema and the types of the arguments."
        ),
        examples=[["public.exchange_rate", "st_collect(geometry)"]],
        group="Safety",
        advanced=True,
    )
    denied_functions: Names = Option(
        default=(),
        help="More functions that queries may not call, written as the allowed ones.",
        examples=[["public.expensive_report"]],
        group="Safety",
        advanced=True,
    )
    guard: Literal["server", "names-first", "names"] = Option(
        default="server",
        group="Safety",
        advanced=True,
        help=(
            "How the functions that a query calls are told: 'server' asks the server to analyse every "
            "query, which its log repeats; 'names-first' asks only where a name or a literal in the "
            "query may mean something else than PostgreSQL's own, or a query stands in FROM or WITH; "
            "'names' never asks, and refuses what names leave open, for servers whose analysis "
            "cannot be read."
        ),
        examples=["server"],
    )

    @field_validator("dsn")
    @classmethod
    def _check_dsn(cls, dsn: SecretStr | None) -> SecretStr | None:
        if dsn is not None:
            _parse_dsn(dsn)
        return dsn

    @model_validator(mode="after")
    def _check_required(self) -> PostgreSQLOptions:
        merged = self._parameters()
        for name, keyword in (("host", "host"), ("database", "dbname"), ("user", "user")):
            if not merged.get(keyword) and not (name == "host" and merged.get("hostaddr")):
                raise ValueError(f"option {name!r} is missing; give it, or a 'dsn' with it")
        if merged.get("sslmode") == "verify-ca" and not merged.get("sslrootcert"):
            raise ValueError("with 'sslmode' of 'verify-ca', option 'sslrootcert' is missing")
        for name, value in merged.items():
            if "\0" in value:
                raise ValueError(f"option {name!r} holds a NUL character")
        return self

    def hosts(self) -> Iterable[str]:
        """Return every host of the options and of the connection string."""
        merged = self._parameters()
        host_lists = [merged.get(name, "").split(",") for name in ("hostaddr", "host")]
        return list(dict.fromkeys(host for hosts in host_lists for host in hosts if host))

    def destination(self) -> Mapping[str, Any]:
        """Return the connection parameters that decide who receives the password.

        Those are host, address, port, the options of TLS and GSS, and `options`, by which some
        services choose a server. Database and user are among them, as poolers such as PgBouncer
        and Supavisor send a login on to the server that belongs to its database or user. A `dsn`
        that cannot be read before its references are resolved counts as a whole.
        """
        try:
            parameters = self.conninfo()
        except ValueError:
            without_dsn = self.model_copy(update={"dsn": None})
            text = self.dsn.get_secret_value() if self.dsn else ""
            parameters = {**without_dsn.conninfo(), "dsn": _reference_or_digest(text)}
        return {name: text for name, text in parameters.items() if name not in _NO_DESTINATION}

    def ambient(self) -> bool:
        """Return True if the server may know the role by the host's user or Kerberos ticket.

        Through a Unix socket it may, by `peer`, even if a password is given. Password files and
        `PG…` variables are never used.
        """
        merged = self._parameters()
        sockets = any(host.startswith(("/", "@")) for host in self.hosts())
        return sockets or merged.get("gssencmode", "disable") != "disable"

    def paths(self) -> Iterable[str]:
        """Return the certificate and key files."""
        merged = self._parameters()
        return [merged[name] for name in _SSL_FILES if merged.get(name, "system") != "system"]

    def secret_values(self) -> list[str]:
        """Return the secret options, and each secret inside the connection string."""
        dsn = _parse_dsn(self.dsn) if self.dsn else {}
        dsn_secrets = [dsn[name] for name in ("password", "sslpassword") if dsn.get(name)]
        return [*super().secret_values(), *dsn_secrets]

    @staticmethod
    def password_in(name: str, text: str) -> str | None:
        """Return the password in a new value of the option `password` or `dsn`.

        Of a connection string only the password is used: its hosts have passed no check.

        Raises:
            OptionError: The connection string cannot be read.
        """
        if name == "password":
            return text
        try:
            return _parse_dsn(SecretStr(text)).get("password")
        except ValueError as exc:
            raise OptionError(f"option 'dsn': {exc}") from None

    def conninfo(self) -> dict[str, str]:
        """Return the connection parameters.

        Every parameter that libpq has is set, so that libpq takes none from `PG…` variables, from a
        password file, or from certificates and tickets in the host's home directory.
        """
        defaults = pq.Conninfo.get_defaults()
        keywords = {option.keyword.decode() for option in defaults}
        compiled = {
            option.keyword.decode(): option.compiled.decode()
            for option in defaults
            if option.envvar and option.compiled is not None
        }
        neutral = {name: value for name, value in _NEUTRAL_VALUES.items() if name in keywords}
        merged = {"application_name": "datasources", **self._parameters()}
        if merged.get("sslmode") == "verify-full":
            merged.setdefault("sslrootcert", "system")
        if "sslcert" not in merged and "sslcertmode" in keywords:
            neutral["sslcertmode"] = "disable"
        return {**compiled, **neutral, **merged, "client_encoding": "UTF8"}

    def _parameters(self) -> dict[str, str]:
        """Return the parameters that have a value, with `~` in paths of certificates expanded.

        To libpq an empty value means the default, such as a certificate in the home directory.
        """
        merged = _parse_dsn(self.dsn) if self.dsn else {}
        for field, keyword in _KEYWORD_OF_FIELD.items():
            if (value := getattr(self, field)) is not None:
                merged[keyword] = str(value)
        if self.host is not None:
            merged.pop("hostaddr", None)
        if self.password is not None:
            merged["password"] = self.password.get_secret_value()
        for name in _SSL_FILES:
            if merged.get(name, "").startswith("~"):
                merged[name] = os.path.expanduser(merged[name])
        return {name: value for name, value in merged.items() if value}


def _reference_or_digest(dsn: str) -> str:
    """Return the text of a reference, which is no secret, and a digest of any other text."""
    if re.fullmatch(r"\$\{[^{}]*\}", dsn):
        return dsn
    return hashlib.sha256(dsn.encode(errors="surrogatepass")).hexdigest()


def _parse_dsn(dsn: SecretStr) -> dict[str, str]:
    """Return the parameters of a connection string or URL.

    Raises:
        ValueError: It cannot be read. The message repeats no value, and no name that may be a part
            of a password.
    """
    text = dsn.get_secret_value()
    if len(text) > _MAX_DSN:
        raise ValueError(f"it has more than {_MAX_DSN} characters")
    if "\0" in text:
        raise ValueError("it holds a NUL character, and libpq ignores what stands behind one")
    if is_url := _URL.match(text) is not None:
        text = text.strip()  # blanks around it, such as the line break of a file
        _check_url(text)
    try:
        parsed = conninfo_to_dict(text)
    except ProgrammingError:
        # libpq's own message would repeat the string, password included.
        raise ValueError(_parse_problem(text, is_url=is_url)) from None
    if unknown := sorted(set(parsed) - _DSN_KEYWORDS):
        raise ValueError(_unsupported(unknown))
    _check_values(parsed)
    if int(parsed.get("connect_timeout") or 1) <= 0:
        del parsed["connect_timeout"]  # without a limit of its own: the host's pool has one
    return {name: str(value) for name, value in parsed.items() if value is not None}


def _check_values(parameters: Mapping[str, Any]) -> None:
    """Raise ValueError if a parameter has a value that libpq does not take."""
    for name, pattern in (("port", r"[\d,]*"), ("connect_timeout", r"-?\d{0,9}")):
        if not re.fullmatch(pattern, str(parameters.get(name, ""))):
            raise ValueError(f"its {name} is not a number")
    for port in str(parameters.get("port", "")).split(","):
        if port and (len(port) > 9 or not 1 <= int(port) <= _MAX_PORT):
            raise ValueError(f"its port is not a number from 1 to {_MAX_PORT}")
    for name, choices in _DSN_CHOICES.items():
        if parameters.get(name) and parameters[name] not in choices:
            raise ValueError(f"its {name} is none of {', '.join(map(repr, choices))}")


def _check_url(url: str) -> None:
    scheme, _, rest = url.partition("://")
    if scheme not in {"postgresql", "postgres"}:
        raise ValueError(
            "a URL begins with 'postgresql://', without 'jdbc:' or the name of a driver before '://'"
        )
    location, query = _location_and_query(rest)
    unknown = [name for name, _ in _query_parameters(query) if name not in _keywords()]
    if "@" in location or ("@" in query and unknown and not _has_user(rest)):
        # libpq would use a part of the password as host or database, and name it in errors.
        raise ValueError("characters such as '/' and '@' in its password must be percent-encoded")


def _parse_problem(text: str, *, is_url: bool) -> str:
    """Return what is wrong with a text that libpq cannot read."""
    if is_url:
        parameters = _query_parameters(_location_and_query(text.partition("://")[2])[1])
    elif _SEMICOLONS.match(text):
        return "it has ';' between its parameters; write host=… dbname=… with blanks, or a URL"
    else:
        parameters = _PARAMETER.findall(text)
    # What follows a password may belong to it, if a character of it was not quoted.
    unknown = [
        name
        for (name, value), (previous, _) in zip(parameters, [("", ""), *parameters], strict=False)
        if (name not in _keywords() or (name == "ssl" and (value != "true" or not is_url)))
        and previous not in {"password", "sslpassword"}
        and _PLAIN_NAME.fullmatch(name)
    ]
    if unknown:
        return _unsupported(unknown)
    return (
        "it is not a connection string or URL that libpq can read; a URL begins with postgresql://, "
        "and a string has parameters such as dbname=…"
    )


def _unsupported(names: Sequence[str]) -> str:
    quoted = ", ".join(map(repr, dict.fromkeys(names)))
    subject = f"parameter {quoted} is" if len(set(names)) == 1 else f"parameters {quoted} are"
    return f"its {subject} not supported; supported: {', '.join(sorted(_DSN_KEYWORDS))}"


def _has_user(rest: str) -> bool:
    """Return True if libpq reads a user from what follows `://`: up to an '@' before any '/'."""
    return "@" in rest.partition("/")[0]


def _location_and_query(rest: str) -> tuple[str, str]:
    """Split what follows `://`, without user and password, at the '?'."""
    location, _, query = (rest.partition("@")[2] if _has_user(rest) else rest).partition("?")
    return location, query


def _query_parameters(query: str) -> list[tuple[str, str]]:
    """Return names and values of a URL's query, as they are written."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return [(name, value) for name, _, value in pairs]


@cache
def _keywords() -> frozenset[str]:
    """Return the parameters that libpq has, and those that it takes from JDBC in a URL."""
    return frozenset({"ssl", *(option.keyword.decode() for option in pq.Conninfo.get_defaults())})

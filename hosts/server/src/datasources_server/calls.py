"""One authenticated request: the principal, and what the routes need for it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Path, Request
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from datasources import Access, DataSourceRegistry, Principal, Records
from datasources_server.metrics import Metrics
from datasources_server.page_cache import PageCache
from datasources_server.problems import Problem, invalid
from datasources_server.settings import ServerSettings
from datasources_server.tokens import TokenStore

if TYPE_CHECKING:
    from datasources import AuditLog, SplitPlan
    from datasources_server.audit import AuditTrail
    from datasources_server.running import JobRunner
    from datasources_server.token_uses import TokenUses

Authenticate = Callable[[Request], Principal | Awaitable[Principal | None] | None]
"""Returns the principal of a request, or None if it has none; may be a coroutine function."""

FindPrincipal = Callable[[str], Principal | Awaitable[Principal | None] | None]
"""Returns the principal of an id as it is now, or None if it may do nothing any more; may be a
coroutine function."""

CheckCsrf = Callable[[Request], bool | Awaitable[bool]]
"""Returns True if a request with cookies was made by a page of the host; may be a coroutine
function."""

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # which change nothing
_MINUTE = 60.0
_MAX_PRINCIPALS = 10_000  # whose tests are counted at a time


@dataclass
class Api:
    """The parts that all requests share."""

    registry: DataSourceRegistry
    authenticate: Authenticate
    settings: ServerSettings
    tokens: TokenStore | None = None
    """Those that the routes below `/tokens` manage."""
    find_principal: FindPrincipal | None = None
    """For what a principal does without a request of its own, such as links and jobs."""
    secret_states: dict[tuple[str, int | None], dict[str, Any]] = field(default_factory=dict)
    """Fingerprints of secrets, by id and version of the source."""
    source_pages: PageCache = field(default_factory=PageCache)
    """Pages of lists of sources in JSON."""
    metrics: Metrics = field(default_factory=Metrics)
    """The figures of this process."""
    csrf: CheckCsrf | None = None
    """Asked for requests with cookies that may change something; None if there are no cookies."""
    uses: TokenUses | None = None
    """The last uses of tokens."""
    audit_log: AuditLog | None = None
    """A log of the host, which gets the entries about tokens and refused requests, too."""
    trail: AuditTrail | None = None
    """The entries of the audit trail that this process adds."""
    runner: JobRunner | None = None
    """The jobs of this process."""
    plans: dict[str, SplitPlan] = field(default_factory=dict)
    """The plans that this process holds, by the id of their records."""
    _tests: dict[str, deque[float]] = field(default_factory=dict)
    _running: Counter[tuple[str, str]] = field(default_factory=Counter)

    async def principal_of(self, request: Request) -> Principal:
        """Return the principal of a request.

        Raises:
            Problem: 401, there is none.
        """
        principal = self.authenticate(request)
        if isawaitable(principal):
            principal = await principal
        if not isinstance(principal, Principal):
            raise not_authenticated()
        return principal

    async def check_csrf(self, request: Request) -> None:
        """Check that a page of the host has made a request with cookies.

        Raises:
            Problem: 403, a page of another site may have made it.
        """
        if self.csrf is None or request.method in _SAFE_METHODS or "cookie" not in request.headers:
            return
        is_ours = self.csrf(request)
        if isawaitable(is_ours):
            is_ours = await is_ours
        if is_ours is not True:
            raise Problem(403, "csrf-refused", "a page of another site may have made the request")

    async def find(self, principal_id: str) -> Principal | None:
        """Return a principal as it is now; None if it may do nothing any more.

        Raises:
            Problem: 501, the host cannot tell.
        """
        if self.find_principal is None:
            raise Problem(
                501,
                "not-supported",
                "links, plans of splits and workspaces need `find_principal`, which the host of this "
                "server has not given",
            )
        principal = self.find_principal(principal_id)
        if isawaitable(principal):
            principal = await principal
        return principal

    def records(self) -> Records:
        """Return the records that the workers of a server share.

        Raises:
            Problem: 501, the store has none.
        """
        # A store that was written for an older version may not inherit the method.
        open_records = getattr(self.registry.store, "records", None)
        records: Records | None = open_records() if open_records is not None else None
        if records is None:
            raise Problem(
                501,
                "not-supported",
                "the store of sources keeps no records, which this route needs",
            )
        return records

    async def call_of(self, request: Request) -> Call:
        """Return the call of a request; raises as `principal_of`."""
        principal = await self.principal_of(request)
        access = self.registry.access(
            principal,
            limits=self.settings.limits,
            concurrency=self.settings.concurrent_fetches,
        )
        return Call(self, principal, access, request.scope["datasources.request_id"])

    @contextmanager
    def count_running(self, kind: str, principal_id: str) -> Iterator[None]:
        """Count one of the `uploads` or `plans` of a principal while the block runs.

        Raises:
            Problem: 429, the principal has as many of them as are allowed.
        """
        places, key = self.settings.concurrent_fetches, (kind, principal_id)
        if self._running[key] >= places:
            raise Problem(
                429,
                f"too-many-{kind}",
                f"{places} {kind} of yours are running, and more are not allowed at once",
                headers={"Retry-After": "1"},
                retryable=True,
            )
        self._running[key] += 1
        try:
            yield
        finally:
            self._running[key] -= 1
            self._running += Counter()  # without the principals that have none

    def count_test(self, principal_id: str) -> None:
        """Count a test of a connection.

        Raises:
            Problem: 429, the principal has made too many within a minute.
        """
        if len(self._tests) >= _MAX_PRINCIPALS:
            self._tests.pop(next(iter(self._tests)))
        times, now = self._tests.setdefault(principal_id, deque()), time.monotonic()
        while times and times[0] <= now - _MINUTE:
            times.popleft()
        if len(times) >= self.settings.tests_per_minute:
            raise Problem(
                429,
                "too-many-tests",
                f"more than {self.settings.tests_per_minute} tests of connections in a minute",
                headers={"Retry-After": str(int(times[0] + _MINUTE - now) + 1)},
                retryable=True,
            )
        times.append(now)


@dataclass(frozen=True)
class Call:
    """One authenticated request."""

    api: Api
    principal: Principal
    access: Access
    request_id: str

    @property
    def registry(self) -> DataSourceRegistry:
        return self.api.registry

    @property
    def settings(self) -> ServerSettings:
        return self.api.settings

    def page_size(self, limit: int | None) -> int:
        """Return the number of entries of a page, 100 at most by default; raise Problem 422."""
        if limit is not None and limit > self.settings.max_page:
            raise invalid("limit", f"must be at most {self.settings.max_page}")
        return limit or min(100, self.settings.max_page)

    def require_admin(self) -> None:
        """Raise Problem 403 if the principal is no administrator."""
        if not self.principal.is_admin:
            raise Problem(403, "not-allowed", "only administrators may do this")


class CurrentCall(HTTPBearer):
    """Returns the call of a request, as a dependency, and names the token in the OpenAPI document.

    Args:
        admin: True to refuse requests of others than administrators.
    """

    def __init__(self, *, admin: bool = False) -> None:
        super().__init__(scheme_name="HTTPBearer")
        self._admin = admin

    async def __call__(self, request: HTTPConnection) -> Call:  # type: ignore[override]  # no text
        call: Call = request.scope["datasources.call"]
        if self._admin:
            call.require_admin()
        return call


async def exit_stack(request: Request) -> AsyncExitStack:
    """Return the stack that is left when the response is sent or the client has left."""
    stack: AsyncExitStack = request.scope["datasources.exit_stack"]
    return stack


def not_authenticated() -> Problem:
    """Return the problem of a request without a valid token."""
    return Problem(
        401,
        "not-authenticated",
        "the request needs the header `Authorization: Bearer …` with a valid token",
        headers={"WWW-Authenticate": "Bearer"},
    )


AnyCall = Annotated[Call, Depends(CurrentCall())]
AdminCall = Annotated[Call, Depends(CurrentCall(admin=True))]
ExitStack = Annotated[AsyncExitStack, Depends(exit_stack)]
SourceId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""The id of a source in a path, as core takes it."""

"""Decide whether a statement only reads, by what the server's own analysis says that it calls.

These steps are the layers 1 and 2 of the README, in their order; its layers 3 and 4, the READ ONLY
transaction and the role, are in `reading.py` and `connections.py`:

1. The text (`text.py`): one statement, of kinds that read, of bounded size, that calls no function
   which is denied by name. `parse_read` needs no connection.
2. The literals (`literals.py`), only where a type checks its values by functions of the database's
   own: the server converts literals while it analyses, so it analyses the query without them first.
3. The tree (`tree.py`, `calls.py`, `closure.py`): the server analyses the query that will run (of a
   COPY or an EXPLAIN, the query inside) and sends its tree, in which views and policies are expanded
   and every function has its id. What
   the tree does not say is looked up, and no function may be volatile, unless it is known to be
   harmless or is allowed. The same tree tells what planning takes: what subqueries unfold to
   (`unfolding.py`) and what constants are computed (`constants.py`).
4. The evidence (`evidence.py`): right before the statement runs, and after it, nothing that was
   looked up has changed.

The server parses the text again when it runs. That it means the same then rests on three things: the
caller's search path in both, the locks of the transaction, and the evidence. With `names-first`, a
query skips step 3 if its names are clear, no function in it makes large values of small ones, and it
has no query in FROM or WITH; with `names`, every
query does: what expressions unfold to is then estimated from the text (`estimating.py`), and what
constants take is not bounded, because it is seen in the tree alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from datasources import PolicyError, run_in_thread
from datasources_postgresql.guard import constants, literals, lookup, names, unfolding
from datasources_postgresql.guard.bounds import MAX_PARTS
from datasources_postgresql.guard.calls import FIRST_NORMAL, Calls, Place, collect
from datasources_postgresql.guard.closure import Closure, Function, Refusal
from datasources_postgresql.guard.evidence import Evidence
from datasources_postgresql.guard.policy import FunctionPolicy
from datasources_postgresql.guard.text import Statement, parse_read
from datasources_postgresql.guard.tree import Node, UnreadableTreeError, parse
from datasources_postgresql.options import PostgreSQLOptions

if TYPE_CHECKING:
    from datasources_postgresql.reading import Transaction

T = TypeVar("T")
R = TypeVar("R")

_FAST_TO_PARSE = 1_000  # characters of a query that are parsed on the event loop, in less than 5 ms
_MAX_TREE = 16 << 20  # characters of a tree; it takes about 10 times as much memory when it is read
_SMALL_CONSTANTS = 64 << 10  # bytes that the planner may copy for each of many partitions
_SHORT_TREE = 20_000  # characters of a tree that are read on the event loop, in about 3 ms

# Views are expanded during the analysis. Each of the given names counts as often as it is given.
_VIEW_PARTS = rb"""
WITH RECURSIVE parts(oid) AS (
    SELECT c.oid FROM pg_catalog.unnest(%s::text[]) AS given(name)
    JOIN pg_catalog.pg_class c ON c.relname = given.name
    WHERE c.relkind = 'v' AND c.oid >= 16384
  UNION ALL
    SELECT part[1]::pg_catalog.oid
    FROM parts
    JOIN pg_catalog.pg_rewrite r ON r.ev_class = parts.oid AND r.ev_type = '1',
        pg_catalog.regexp_matches(r.ev_action::text, ':rtekind 0 :relid (\d+)', 'g') AS part
    WHERE part[1]::pg_catalog.oid <> parts.oid)
SELECT pg_catalog.count(*) FROM (SELECT FROM parts LIMIT %s) AS counted
"""


async def parse_statement(query: str, policy: FunctionPolicy) -> Statement:
    """Return the one reading statement that a query is; a long one is parsed in a thread.

    Raises:
        PolicyError: It is none, or it would do something else than read.
        DataFetchError: It is not SQL; code 42601.
    """
    if len(query) <= _FAST_TO_PARSE:
        return parse_read(query, policy.denied_names)
    return await run_in_thread(parse_read, query, policy.denied_names)


@dataclass(slots=True)
class Permit:
    """The permission to run a statement, and the evidence that it rests on."""

    evidence: Evidence
    transaction: Transaction

    async def check(self, snapshot: str | None) -> None:
        """Check that nothing of the evidence has changed since the analysis.

        Args:
            snapshot: The server's snapshot of this moment.

        Raises:
            DataFetchError: Something has. Nothing must be delivered.
        """
        await self.evidence.check(self.transaction.execute, snapshot)


class Guard:
    """Checks the statements of one transaction.

    Args:
        transaction: Runs the questions, and has the server analyse a statement.
        options: `guard`, `allowed_functions` and `denied_functions`.
    """

    def __init__(self, transaction: Transaction, options: PostgreSQLOptions) -> None:
        self._transaction = transaction
        self._policy = FunctionPolicy(options)
        self._mode = options.guard
        self._evidence: Evidence | None = None

    async def check_before_parsing(self, statement: Statement) -> None:
        """Check what the server would do while it parses a statement: convert literals, expand views.

        Raises:
            PolicyError: A literal would be checked by a function that may not be called, or views
                unfold to too much.
        """
        execute = self._transaction.execute
        evidence = await Evidence.before_analysis(
            execute, statement, self._transaction.possible_schemas
        )
        self._evidence = evidence
        if self._mode == "names":
            if statement.unfolded > unfolding.MAX_NODES:
                raise PolicyError(
                    "the query may unfold to too much to plan, as its option 'guard' is 'names' and only "
                    "its text tells; 'server' asks the server's analysis"
                )
            await self._check_names(statement)
            return
        if statement.relations and evidence.oids("view"):
            ((parts,),) = await execute(_VIEW_PARTS, [list(statement.relations), MAX_PARTS + 1])
            if parts > MAX_PARTS:
                raise PolicyError(
                    f"the views of the query unfold to more than {MAX_PARTS} tables and views"
                )
        if "'" not in statement.query and "$" not in statement.query:
            return
        ((exists,),) = await execute(literals.CHECKING_TYPES, [])
        if not exists:
            return
        text = await _run(
            len(statement.query), _FAST_TO_PARSE, literals.without_literals, statement
        )
        if text is None:
            return
        calls = Calls()
        queries, _ = await self._analyse(text)
        for query in queries:
            _add_constants(calls, query)
        await self._judged_closure(evidence, calls, statement.query)

    async def permit(self, statement: Statement, text: str) -> Permit:
        """Check what a text would call, as the server analyses it.

        Args:
            statement: The caller's statement.
            text: The query that will run: that of the statement, or one around it.

        Raises:
            PolicyError: It would call a function that may change something.
        """
        transaction, evidence = self._transaction, self._evidence
        assert evidence is not None  # `check_before_parsing` comes first
        # What a query in FROM or WITH unfolds to, and what constants take, is seen in the tree alone.
        is_small = not statement.nested and not statement.names & constants.GROWING_NAMES
        trusts_names = self._mode == "names" or (self._mode == "names-first" and is_small)
        await evidence.refresh(transaction, "own" if trusts_names else "tree")
        if trusts_names and await self._check_names(statement) is None:
            return Permit(evidence, transaction)
        queries, size = await self._analyse(text)
        unfolded, calls = await _run(size, _SHORT_TREE, _unfolded, queries)
        if calls.writes:
            raise PolicyError(f"the source is read-only, and {calls.writes} is not a read")
        await self._add_named_types(calls)
        closure = await self._judged_closure(evidence, calls, text, statement.query)
        planned = await _run(size, _SHORT_TREE, _check_constants, (unfolded, closure.functions))
        if planned > _SMALL_CONSTANTS:
            await self._check_copied_constants(planned, calls)
        return Permit(evidence.with_closure(closure), transaction)

    async def _check_copied_constants(self, size: float, calls: Calls) -> None:
        """Check what the constants of a query take where each partition gets a copy."""
        tables = [oid for oid in calls.relations if oid >= FIRST_NORMAL]
        ((count,),) = await self._transaction.execute(lookup.COUNT_OF_CHILDREN, [tables])
        if size * count > constants.MAX_COPIED_BYTES:
            raise PolicyError(
                f"planning the query computes constants of about {size:,.0f} bytes for each of {count} "
                f"partitions; {constants.MAX_COPIED_BYTES:,} bytes for all are possible"
            )

    async def _check_names(self, statement: Statement) -> str | None:
        what = await names.unclear(self._transaction.execute, statement, self._policy)
        if what is not None and self._mode == "names":
            raise PolicyError(
                f"the source is read-only, and its option 'guard' is 'names', by which the {what} may "
                "call functions that change something; 'server' asks the server's analysis"
            )
        return what

    async def _analyse(self, text: str) -> tuple[list[Node], int]:
        """Return the server's tree of a text, and the length of the tree's own text."""
        details = await self._transaction.analyse(text)
        if len(details) != 1:
            raise _unreadable("the server has sent none" if not details else "there are several")
        tree = details[0]
        if len(tree) > _MAX_TREE:
            raise PolicyError(
                f"the server's analysis of the query has {len(tree)} characters; {_MAX_TREE} are possible"
            )
        try:
            return await _run(len(tree), _SHORT_TREE, parse, tree), len(tree)
        except UnreadableTreeError as exc:
            raise _unreadable(str(exc)) from exc

    async def _add_named_types(self, calls: Calls) -> None:
        for name, place in calls.type_names:
            if name is None:
                raise PolicyError(
                    "the source is read-only, and a type that is not named by a plain text may check "
                    "its values by functions that change something"
                )
            calls.made_types.setdefault(await self._transaction.type_id(name), place)

    async def _judged_closure(
        self, evidence: Evidence, calls: Calls, text: str, query: str = ""
    ) -> Closure:
        calls.changed_operators = frozenset(evidence.oids("changed operator"))
        for family in evidence.families:
            calls.families.setdefault(family, Place("an operator family"))
        closure = Closure(
            self._transaction.execute,
            self._policy,
            self._transaction.system_functions,
            has_casts=bool(evidence.oids("cast")),
            plain_tables=evidence.plain_tables(),
        )
        try:
            await closure.follow(calls)
        except UnreadableTreeError as exc:
            raise _unreadable(str(exc)) from exc
        if (refusal := await closure.refusal()) is not None:
            raise _refused(refusal, text, query or text)
        return closure


async def _run(size: int, short: int, function: Callable[[T], R], argument: T) -> R:
    """Call a function, in a thread if its argument is not short."""
    if size <= short:
        return function(argument)
    return await run_in_thread(function, argument)


def _unfolded(queries: list[Node]) -> tuple[list[unfolding.Query], Calls]:
    """Return queries with the sizes of their parts, and what they call."""
    try:
        return unfolding.check(queries), collect(queries)
    except unfolding.TooLargeError as exc:
        raise PolicyError(f"the query unfolds to {exc}, which is too much to plan") from None
    except UnreadableTreeError as exc:
        raise _unreadable(str(exc)) from exc


def _check_constants(given: tuple[list[unfolding.Query], dict[int, Function]]) -> float:
    try:
        return constants.check(*given)
    except constants.TooManyBytesError as exc:
        raise PolicyError(f"planning the query computes {exc}") from None


def _add_constants(calls: Calls, tree: Node) -> None:
    """Add the type of every constant and parameter, also of those that are NULL."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if node.label in {"CONST", "PARAM"}:
            type_ = node.number("consttype") or node.number("paramtype")
            calls.made_types.setdefault(type_, Place("", node.number("location")))
        stack.extend(child for _, child in node.children)


def _unreadable(why: str) -> PolicyError:
    return PolicyError(
        f"the server's analysis of the query cannot be read ({why}), so it is refused; the option "
        "'guard' of the source can admit a check of names in its place"
    )


def _refused(refusal: Refusal, text: str, query: str) -> PolicyError:
    function = refusal.function
    signature = f"{function.full_name}({refusal.arguments})"
    where = f", in {refusal.place.inside}" if refusal.place.inside else ""
    if not where and refusal.place.location >= 0:
        before = text.encode()[: refusal.place.location].decode(errors="replace")
        position = len(before) - max(0, text.find(query)) + 1
        if 0 < position <= len(query):
            where = f" at character {position}"
    if refusal.denied:
        reason = "may not be called"
        remedy = ""
    else:
        reason = "is volatile: it may change something"
        remedy = "; the option 'allowed_functions' of the source can admit it"
    return PolicyError(
        f"the source is read-only, and the function {signature}{where} {reason}{remedy}"
    )

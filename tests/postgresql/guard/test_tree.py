"""A tree that is not wholly understood is a refusal."""

from __future__ import annotations

import pytest

from datasources import PolicyError
from datasources_postgresql import PostgreSQLConnector
from datasources_postgresql.guard.tree import UnreadableTreeError, parse
from datasources_postgresql.reading import Transaction
from tests.postgresql.conftest import Admin

CONST = "{CONST :consttype 25 :constisnull false :location 7 :constvalue 5 [ 20 0 0\n0 120 ]}"


def test_nodes_lists_and_words_are_read() -> None:
    (target,) = parse(f"({{TARGETENTRY :expr {CONST} :resname :funcid :resno 1}})")
    assert (target.label, target.text("resname"), target.number("resno")) == (
        "TARGETENTRY",
        ":funcid",
        1,
    )
    (constant,) = target.nodes("expr")
    assert constant["constvalue"] == "[ 20 0 0\n0 120 ]"
    (aggregate,) = parse("{AGGREF :aggfnoid 2803 :aggargtypes (o 23 25) :args <>}")
    assert aggregate.numbers("aggargtypes") == [23, 25]
    (entry,) = parse(r"{ALIAS :aliasname a\ \(b\) :colnames (\"x\" \"y\")}".replace('\\"', '"'))
    assert entry.text("aliasname") == "a (b)"


@pytest.mark.parametrize(
    "text",
    [
        "{NOVELTY :args <>}",
        "{FUNCEXPR :funcid 1 :novelty 2}",
        "{FUNCEXPR :funcid 1",
        "({FUNCEXPR :funcid 1}",
        "{FUNCEXPR :funcid 1}} ",
        "{FUNCEXPR :funcid )}",
        "{FUNCEXPR :funcid 1} {FUNCEXPR :funcid 2}",
        "{ALIAS :aliasname\n" + "x" * 80 + "\n}",
        "{",
        "",
    ],
)
def test_what_is_not_known_or_cut_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableTreeError):
        parse(text)


@pytest.mark.parametrize(
    "details", [[], ["({QUERY :novelty 1})"], ["({QUERY :commandType 1})"] * 2, ["({QUERY"]]
)
async def test_no_tree_two_trees_or_an_unknown_one_refuse_the_statement(
    admin: Admin,
    reader: PostgreSQLConnector,
    monkeypatch: pytest.MonkeyPatch,
    details: list[str],
) -> None:
    async def analyse(_self: Transaction, _text: str) -> list[str]:
        return details

    monkeypatch.setattr(Transaction, "analyse", analyse)
    with pytest.raises(PolicyError, match=r"cannot be read .* the option 'guard'"):
        await reader.preview("SELECT 1")


async def test_names_of_columns_cannot_imitate_a_tree(reader: PostgreSQLConnector) -> None:
    preview = await reader.preview('SELECT 1 AS ":funcid", 2 AS "}", 3 AS "[1]x", 4 AS "\\ ("')
    assert preview.rows == [(1, 2, 3, 4)]


WHITE_SPACE = ["\r", "\v", "\f", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", " ", "\t", "\n"]


@pytest.mark.parametrize("character", WHITE_SPACE, ids=ascii)
async def test_white_space_in_the_name_of_a_column_belongs_to_the_name(
    admin: Admin, reader: PostgreSQLConnector, character: str
) -> None:
    name = f"a{character}b"
    admin.execute(f'CREATE TABLE t AS SELECT 1 AS "{name}"')
    assert (await reader.preview("t")).columns == (name,)
    assert (await reader.preview(f'SELECT max("{name}") AS "{name}" FROM t')).columns == (name,)

"""Which tables and indexes the server's plans go through, in the plans' own words."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

TELL_PLANS: Final = "-c debug_print_plan=on -c debug_pretty_print=off -c client_min_messages=log"
"""Connection options with which the server sends every plan it makes to the client, those inside functions too.

So what is looked at is what is run: no statement has to be taken out of a function and planned apart from it.
"""

_TOKEN: Final = re.compile(r"\\.|\{(\w+)|(\})|:([\w.]+)(?:\s+((?:\\.|[^\s{}()\\])+))?")
_WEEK: Final = re.compile(r"\d{8}")


class Scan(NamedTuple):
    """One way into a table: SEQSCAN and the like, the table, and the index it is by."""

    kind: str
    table: str
    by: str | None


class Plan(NamedTuple):
    """What one statement was planned as."""

    scans: frozenset[Scan]
    sorts: bool


class PlansMade:
    """The plans that connections were heard to make."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def hear(self, connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> None:
        """Listen to a connection opened with TELL_PLANS."""
        connection.add_notice_handler(self._note)

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.message_primary == "plan:":
            self._texts.append(notice.message_detail or "")

    @contextmanager
    def forgotten(self) -> Iterator[None]:
        """Leave out what was heard before."""
        self._texts.clear()
        yield

    def plans(self, names: dict[int, str]) -> list[Plan]:
        """Give the plans heard that go into a table, with the names of relations put in; weeks are all one."""
        plans = [_plan(text, names) for text in self._texts]
        return [plan for plan in plans if plan.scans]


def _plan(text: str, names: dict[int, str]) -> Plan:
    """Read the text of a node tree: `{NODE :field value :field {NODE ...} ...}`, a backslash before what is meant."""
    nodes: list[tuple[str, dict[str, str]]] = []
    stack: list[dict[str, str]] = []
    for opened, closed, name, value in _TOKEN.findall(text):
        if opened:
            stack.append({})
            nodes.append((opened, stack[-1]))
        elif closed:
            stack.pop()
        elif name and value and stack:
            stack[-1][name.rpartition(".")[2]] = value
    tables = [fields.get("relid", "0") for node, fields in nodes if node == "RANGETBLENTRY"]

    def called(oid: str) -> str:
        return _WEEK.sub("week", names.get(int(oid), oid))

    scans = frozenset(
        Scan(
            node,
            called(tables[int(fields["scanrelid"]) - 1]),
            called(fields["indexid"]) if "indexid" in fields else None,
        )
        for node, fields in nodes
        if "scanrelid" in fields and tables[int(fields["scanrelid"]) - 1] != "0"
    )
    return Plan(scans, any(node in {"SORT", "INCREMENTALSORT"} for node, _ in nodes))

"""One round: clients at work, mishaps one after the other, repair, and then the whole evidence is judged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx

from tests.faults import checker, ticket_model
from tests.faults.clients import Client, Shop, at_work
from tests.faults.history import Attempt, History, Sent
from tests.faults.linearizability import Search, Undecided
from tests.faults.mishaps import ALL
from tests.faults.rig import SCHEMA, Rig, eventually, rig
from tests.faults.views_from_zero import check_views

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.faults.mishaps import Mishap

CALM = (8, 40)  # acknowledged commands between two mishaps
MOST_SHOWN = 12


class GuaranteeBroken(AssertionError):
    """A round has found that the desk does not keep what it promises."""


@dataclass(slots=True)
class Report:
    """What a round came to; `wrong` is empty when every guarantee was kept."""

    mishaps: list[str]
    commands: int = 0
    acknowledged: int = 0
    events: int = 0
    reads: int = 0
    lost_replies: int = 0
    recorded_unknown: int = 0
    cut_after_commit: int = 0
    undecided: int = 0
    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Say it in one line."""
        said = ", ".join(f"{name} {count}" for name, count in sorted(self.answers.items()))
        return (
            f"{self.seconds:.0f} s, {self.events} events; {self.commands} commands so far, {self.acknowledged} acknowledged,"
            f" {self.lost_replies} of them after a lost reply, {self.recorded_unknown} recorded and never told,"
            f" {self.reads} reads; cut after commit {self.cut_after_commit}; attempts: {said}; {' '.join(self.mishaps)}"
        )


class Trial:
    """A desk, the people who use it, and everything they have seen so far."""

    def __init__(self, made: Rig, seed: int, clients: int) -> None:
        self.rig = made
        self.seed = seed
        self._clients = clients
        self._chance = Random(f"{seed} mishaps")  # noqa: S311 - to be repeated, not to be secret
        self.history = History()
        self._epoch: list[tuple[Any, ...]] = []
        self.shop = Shop(made.address, made.token, seed, self.history, [], "", "")

    async def people(self) -> None:
        """Have a team, two agents and a requester."""
        self.shop.team = (await self._make("team", "create", {"name": "First line"}))["id"]
        for name in ("Ann", "Bo"):
            made = await self._make("agent", "create", {"name": name, "team_ids": [self.shop.team]})
            self.shop.agents.append(made["id"])
        body = {"name": "王小明", "email": "wang@example.com"}
        self.shop.requester = (await self._make("customer", "register", body))["id"]
        self._epoch = await self.rig.query(checker.EPOCH.format(schema=SCHEMA))

    async def _make(self, kind: str, command: str, body: dict[str, Any]) -> dict[str, Any]:
        sent = Sent(uuid4(), -1, f"{kind}.{command}", None, body)
        self.history.commands.append(sent)
        headers = self.shop.headers | {"X-Request-Id": str(sent.marker)}
        async with httpx.AsyncClient(base_url=self.rig.address, headers=headers, timeout=30) as http:
            sent_at = time.monotonic()
            answer = await http.post(f"/{kind}s", json=body)
            assert answer.status_code == 201, answer.text
            told: dict[str, Any] = answer.json()
            sent.attempts.append(Attempt(sent_at, time.monotonic(), answer.status_code, told))
        return told

    async def round(self, mishaps: Sequence[Mishap]) -> Report:
        """Break and repair the desk under its clients, and judge. Raises GuaranteeBroken, DidNotComeBack."""
        started = time.monotonic()
        report = Report([mishap.__name__ for mishap in mishaps])

        async def happen() -> None:
            for mishap in mishaps:
                await self._some_work()
                self.history.faults.append(mishap.__name__)
                await mishap(self.rig, self._chance)
            await self.rig.repair()
            await self._some_work()

        await at_work(self.shop, self._clients, happen)
        await self._read_everything()
        await self.rig.views_caught_up()
        await self._judge(report)
        report.seconds = time.monotonic() - started
        if report.wrong:
            shown = "\n  ".join(report.wrong[:MOST_SHOWN])
            message = f"seed {self.seed}: {len(report.wrong)} wrong after {report.line()}\n  {shown}\n{self.said()}"
            raise GuaranteeBroken(message)
        return report

    async def _some_work(self) -> None:
        """Wait until clients are being answered, so that the next mishap strikes a desk at work."""
        wanted = self.shop.acknowledged + self._chance.randint(*CALM)

        async def answered() -> bool:
            return self.shop.acknowledged >= wanted

        await eventually(answered, "clients are answered again")

    async def _read_everything(self) -> None:
        """Have several clients read every ticket once more, so that each worker has to tell how it ended."""
        tickets = {command.stream for command in self.history.commands if command.name == "ticket.open"}
        for _ in range(2):
            client = Client(self.shop, -1)
            async with httpx.AsyncClient(base_url=self.shop.address, timeout=30) as http:
                for ticket in filter(None, tickets):
                    await eventually(partial(client.read, http, ticket), f"ticket {ticket} can be read")

    async def _judge(self, report: Report) -> None:
        rows = await self.rig.query(checker.LOG.format(schema=SCHEMA))
        claims = await self.rig.query(checker.CLAIMS.format(schema=SCHEMA))
        epoch = await self.rig.query(checker.EPOCH.format(schema=SCHEMA))
        if epoch != self._epoch:
            report.wrong.append(f"the log's epoch was {self._epoch} and is {epoch}, though nothing was restored")
        conninfo = self.rig.conninfo()
        await asyncio.to_thread(self._examine, report, rows, claims, conninfo)

    def _examine(
        self, report: Report, rows: list[tuple[Any, ...]], claims: list[tuple[Any, ...]], conninfo: str
    ) -> None:
        log = checker.read(rows)
        findings = checker.check_commands(log, self.history)
        report.wrong += checker.check_order(log) + findings.wrong
        report.wrong += checker.check_claims([(kind, key, stream) for kind, key, stream in claims], log, self.history)
        report.wrong += check_views(conninfo, SCHEMA)
        report.wrong += self._check_turns(report)
        report.answers.update(
            attempt.problem or str(attempt.status or "none")
            for command in self.history.commands
            for attempt in command.attempts
        )
        if report.answers["internal-error"]:
            report.wrong.append(f"{report.answers['internal-error']} attempts were answered with internal-error")
        report.events = len(log)
        report.commands = len(self.history.commands)
        report.reads = len(self.history.reads)
        report.acknowledged = findings.acknowledged
        report.lost_replies = findings.lost_replies
        report.recorded_unknown = findings.recorded_unknown
        report.cut_after_commit = 0 if self.rig.proxy is None else self.rig.proxy.cut_after_commit

    def _check_turns(self, report: Report) -> list[str]:
        """Each ticket's history can be told as if its clients had taken turns."""
        wrong = []
        for ticket, operations in ticket_model.operations(self.history.commands, self.history.reads).items():
            search = Search(ticket_model.State(), operations, ticket_model.step)
            try:
                linearizable = search.linearizable()
            except Undecided:
                report.undecided += 1
                wrong.append(f"ticket {ticket}: the history of {len(operations)} operations is too tangled to judge")
                continue
            if not linearizable:
                placed = [operation.what for operation in search.farthest[-3:]]
                rest = [
                    one for one in sorted(operations, key=lambda one: one.answered_at) if one not in search.farthest
                ]
                wrong.append(
                    f"ticket {ticket}: {len(operations)} operations are not linearizable: after {placed}"
                    f" nothing can follow of {[operation.what for operation in rest[:3]]}"
                )
        return wrong

    def said(self) -> str:
        """Give the end of what the desk's processes wrote."""
        with contextlib.suppress(OSError):
            lines = self.rig.log_file.read_text("utf-8", "replace").splitlines()
            return "\n".join(["the desk said last:", *lines[-30:]])
        return ""


@contextlib.asynccontextmanager
async def trial(seed: int, *, together: bool, clients: int, small_disk: bool = False) -> AsyncIterator[Trial]:
    """Set a desk up and let people in."""
    async with rig(together=together, small_disk=small_disk) as made:
        found = Trial(made, seed, clients)
        await found.people()
        yield found


async def carry_out(made: Trial, mishaps: Sequence[Mishap]) -> Report:
    """Carry one round out and raise what went wrong first, alone. Raises GuaranteeBroken, DidNotComeBack."""
    try:
        return await made.round(mishaps)
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        first.add_note(f"seed {made.seed}; mishaps so far: {' '.join(made.history.faults)}\n{made.said()}")
        raise first from None


def drawn(seed: int, count: int, among: Sequence[Mishap] = ALL) -> list[Mishap]:
    """Draw mishaps: each once before any comes again."""
    chance = Random(f"{seed} drawn")  # noqa: S311 - to be repeated, not to be secret
    found: list[Mishap] = []
    while len(found) < count:
        found += chance.sample(list(among), len(among))
    return found[:count]

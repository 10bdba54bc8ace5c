"""People at work while the desk is being broken: they send commands under keys, and ask again until they know."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx

from tests.faults.history import ACKNOWLEDGED, LOST, UNDECIDED, Attempt, History, Seen, Sent

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 1.5  # seconds an attempt waits for its answer: shorter than the longest stall, so that some are lost
PAUSE = 0.1  # seconds before asking again
DEFINITE_WITHIN = 150.0  # seconds; a desk that cannot be made to answer for so long is broken
GIVES_UP = 0.02  # of the commands: their client loses interest after one attempt
WITHOUT_KEY = 0.2  # of the commands: sent once without a key, and left at that whatever is answered
SENDS_TWICE = 0.08  # of the commands: sent twice at the same time, as an impatient person or a proxy does
LOOKS_AFTERWARDS = 0.2  # of the commands: their client reads the ticket at once, and has to find what was answered
STATES_VERSION = 0.15  # of the commands: bound to the version that the client saw last
LONGEST_LIFE = 70  # commands on one ticket, so that its history can be searched
TICKETS_AT_ONCE = 4  # shared by all clients, so that they meet
ADDRESSES = 12  # e-mail addresses that all customers want: fewer than customers

COMMANDS = {
    "assign": 10, "reply": 10, "add-note": 8, "categorise": 12, "tag": 8, "escalate": 4, "set-pending": 4,
    "put-on-hold": 3, "resume": 5, "solve": 6, "reopen": 5, "close": 1, "record-customer-message": 8,
}  # fmt: skip
"""Command → how often it is chosen."""

SAYING = ("reply", "add-note", "record-customer-message")


class NoDefiniteAnswer(AssertionError):
    """A command could not be brought to an answer long after the last fault was repaired."""


@dataclass(slots=True)
class Shop:
    """What all clients share: the desk's address, who is there, and the tickets they work on."""

    address: str
    token: str
    seed: int
    history: History
    agents: list[str]
    team: str
    requester: str
    tickets: list[UUID] = field(default_factory=list)
    worked: dict[UUID, int] = field(default_factory=dict)
    versions: dict[UUID, int] = field(default_factory=dict)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    rounds: int = 0
    acknowledged: int = 0
    """Answers of success so far, by which a mishap knows that it strikes a desk at work."""

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.token}"}

    def retire(self, ticket: UUID) -> None:
        """Work on a ticket no more."""
        if ticket in self.tickets:
            self.tickets.remove(ticket)


class Client:
    """One person: one command at a time, each brought to an answer before the next."""

    def __init__(self, shop: Shop, number: int) -> None:
        self._shop = shop
        self._number = number
        self._chance = Random(f"{shop.seed} round {shop.rounds} client {number}")  # noqa: S311 - to be repeated, not to be secret
        self._customers: list[UUID] = []

    async def work(self) -> None:
        """Work until the shop stops; a command under way is brought to its answer. Raises NoDefiniteAnswer."""
        limits = httpx.Limits(max_connections=2, max_keepalive_connections=2)
        async with httpx.AsyncClient(base_url=self._shop.address, limits=limits, timeout=PATIENCE) as http:
            while not self._shop.stop.is_set():
                await self._next(http)
                await asyncio.sleep(self._chance.uniform(0.0, 0.02))

    async def _next(self, http: httpx.AsyncClient) -> None:
        chance = self._chance
        chosen = chance.random()
        if len(self._shop.tickets) < TICKETS_AT_ONCE or chosen < 0.03:
            body = {"requester_id": self._shop.requester, "subject": "Printer on fire", "body": "It smokes."}
            sent = await self._send(http, "ticket.open", None, body | {"category": self._mark(), "tags": ["new"]})
            if sent.stream is not None:
                self._shop.tickets.append(sent.stream)
                self._shop.versions[sent.stream] = 1
        elif chosen < 0.18:
            await self._customer(http)
        elif chosen < 0.30:
            await self.read(http, chance.choice(self._shop.tickets))
        else:
            await self._command(http)

    async def _command(self, http: httpx.AsyncClient) -> None:
        shop, chance = self._shop, self._chance
        ticket = chance.choice(shop.tickets)
        name = chance.choices(list(COMMANDS), list(COMMANDS.values()))[0]
        shop.worked[ticket] = shop.worked.get(ticket, 0) + 1
        if shop.worked[ticket] > LONGEST_LIFE or (name == "close" and chance.random() < 0.5):
            shop.retire(ticket)
        expected = shop.versions.get(ticket) if chance.random() < STATES_VERSION else None
        await self._send(http, f"ticket.{name}", ticket, self._body(name), expected)
        if chance.random() < LOOKS_AFTERWARDS:
            await self.read(http, ticket)

    def _body(self, name: str) -> dict[str, Any]:
        chance = self._chance
        bodies: dict[str, dict[str, Any]] = {
            "assign": {"agent_id": chance.choice(self._shop.agents)},
            "categorise": {"category": self._mark()},
            "tag": {"tags": [chance.choice(("network", "vip", "printer", "later"))]},
            "escalate": {"level": chance.randint(1, 3), "team_id": self._shop.team, "reason": "Stuck."},
            "put-on-hold": {"third_party": "Vendor"},
            "solve": {"resolution_code": "fixed"},
        }
        said = {"text": "Turned off and on again."} if name in SAYING else {}
        return bodies.get(name, said)

    async def _customer(self, http: httpx.AsyncClient) -> None:
        """Register somebody, or move somebody to another of the addresses that everybody wants."""
        email = f"person{self._chance.randrange(ADDRESSES)}@example.com"
        if len(self._customers) < 3:
            sent = await self._send(http, "customer.register", None, {"name": "Wang", "email": email})
            if sent.stream is not None:
                self._customers.append(sent.stream)
        else:
            customer = self._chance.choice(self._customers)
            await self._send(http, "customer.change-contact", customer, {"email": email})

    async def _send(
        self, http: httpx.AsyncClient, name: str, target: UUID | None, body: dict[str, Any], expected: int | None = None
    ) -> Sent:
        """Send a command until it has a definite answer."""
        chance = self._chance
        sent = Sent(self._id(), self._number, name, target, body, expected)
        self._shop.history.commands.append(sent)
        gives_up = chance.random() < GIVES_UP
        if chance.random() < WITHOUT_KEY:
            sent.keyed, gives_up = False, True
            await self._attempt(http, sent)
        elif chance.random() < SENDS_TWICE:
            await asyncio.gather(self._attempt(http, sent), self._attempt(http, sent))
        else:
            await self._attempt(http, sent)
        deadline = time.monotonic() + DEFINITE_WITHIN
        while not (sent.acknowledgements or sent.refusals or gives_up):
            if time.monotonic() > deadline:
                statuses = [(attempt.status, attempt.problem) for attempt in sent.attempts]
                message = f"{name} {sent.marker} had no definite answer in {DEFINITE_WITHIN:.0f} s: {statuses[-5:]}"
                raise NoDefiniteAnswer(message)
            await asyncio.sleep(PAUSE)
            await self._attempt(http, sent)
        if sent.acknowledgements and target is not None:
            self._shop.versions[target] = sent.acknowledgements[0].answer["version"]
        return sent

    async def _attempt(self, http: httpx.AsyncClient, sent: Sent) -> None:
        kind, _, command = sent.name.partition(".")
        path = f"/{kind}s" if sent.target is None else f"/{kind}s/{sent.target}/{command}"
        marker = str(sent.marker)
        headers = self._shop.headers | {"X-Request-Id": marker}
        if sent.keyed:
            headers["Idempotency-Key"] = marker
        if sent.expected_version is not None:
            headers["If-Match"] = f'"{sent.expected_version}"'
        sent_at = time.monotonic()
        try:
            answer = await http.post(path, json=sent.body, headers=headers)
            status, told = answer.status_code, answer.json()
        except (httpx.TransportError, httpx.StreamError, ValueError):
            status, told = LOST, {}
        sent.attempts.append(Attempt(sent_at, time.monotonic(), status, told))
        self._shop.acknowledged += status in ACKNOWLEDGED

    async def read(self, http: httpx.AsyncClient, ticket: UUID) -> bool:
        """Read a ticket, and tell whether that was answered."""
        sent_at = time.monotonic()
        try:
            answer = await http.get(f"/tickets/{ticket}", headers=self._shop.headers)
        except (httpx.TransportError, httpx.StreamError):
            return False
        if answer.status_code in UNDECIDED:
            return False
        assert answer.status_code == 200, f"{ticket} was acknowledged and then could not be read: {answer.text}"
        told = answer.json()
        agent = told["agent"]
        self._shop.versions[ticket] = told["version"]
        self._shop.history.reads.append(
            Seen(
                ticket,
                sent_at,
                time.monotonic(),
                told["version"],
                told["status"],
                None if agent is None else agent["id"],
                told["category"],
                told["level"],
                frozenset(told["tags"]),
            )
        )
        return True

    def _mark(self) -> str:
        return f"c{self._chance.getrandbits(48):x}"

    def _id(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128), version=4)


async def at_work(shop: Shop, clients: int, while_: Callable[[], Any]) -> None:
    """Have clients work while something is done to the desk; all their commands have an answer afterwards."""
    shop.stop.clear()
    shop.rounds += 1
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(Client(shop, number).work())
        try:
            await while_()
        finally:
            shop.stop.set()

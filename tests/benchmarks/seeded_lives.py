"""Lives of tickets played by the real domain and kept as templates, so that any number of tickets can live them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from domain.event import Act, Channel, Provenance, Rejected, Role
from domain.priority import Grade, Priority
from domain.status import Status
from domain.ticket import Ticket
from domain.ticket_events import TicketType
from tests.benchmarks.lives import CATEGORIES, SENTENCES, SUBJECTS, TAGS

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from domain.agent import Agent
    from domain.event import Event
    from domain.team import Team

LIVES: Final = 256  # of more, templates no longer fit a processor's cache, which costs a quarter of the speed
MEDIAN_EVENTS, P99_EVENTS, FEWEST_EVENTS = 6, 38, 3
"""The real logs at hand have medians of 4 to 7, 99 in 100 tickets up to 10 to 24 and hardly one below 3."""
SPREAD: Final = math.log((P99_EVENTS - FEWEST_EVENTS) / (MEDIAN_EVENTS - FEWEST_EVENTS)) / NormalDist().inv_cdf(0.99)
"""Of the logarithm of how many more there are than the fewest, which is taken to be normal."""

# What stands in a template for what each ticket has of its own.
REQUESTER: Final = UUID("5eed0000-0000-4000-8000-000000000001")
COMMAND: Final = UUID("5eed0000-0000-4000-8000-000000000002")
BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)
BETWEEN_STEPS: Final = timedelta(days=100)  # more than any time that is told relative to a step, such as a wake-up
WAKE_AFTER: Final = tuple(timedelta(hours=hours) for hours in (4, 24, 72))

_BLANK = re.compile(rb"%b|5eed0000-0000-4000-8000-00000000000[12]|20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_TEXT = re.compile("\ue000([a-z]+)([0-9]+)")

_INSTANT, _ID, _HASH = bytes(27), bytes(36), bytes(44)

AT, COMMAND_ID, REQUESTER_ID, OWN = 0, 1, 2, 3
"""Places among a template's values: when the step was, its command, the requester, and whatever else it takes."""


class Sealed(NamedTuple):
    """A personal value of a step: whom it is about (None: the requester), and which text of which kind."""

    field: str
    subject: UUID | None
    kind: str
    number: int


class Moment(NamedTuple):
    """An instant that a step tells of: so many microseconds after another step of the same life."""

    step: int
    later: int


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a life. `state` and `personal` are filled in by `%`, the former with the values at the places `picked`.

    The values are the instant of the event, the id of its command, the requester, a commitment for each of `sealed`
    and an instant for each of `moments`, all as text.
    """

    topic: str
    state: bytes
    picked: tuple[int, ...]
    sealed: tuple[Sealed, ...]
    personal: bytes
    moments: tuple[Moment, ...]

    @property
    def values(self) -> int:
        """How many values there are."""
        return OWN + len(self.sealed) + len(self.moments)

    @property
    def size(self) -> int:
        """How many bytes the state has, which are as many with whatever values."""
        lengths = (_INSTANT, _ID, _ID, *[_HASH] * len(self.sealed), *[_INSTANT] * len(self.moments))
        return len(self.state % tuple(lengths[place] for place in self.picked))


def texts(chance: random.Random) -> dict[str, list[bytes]]:
    """Make up texts of every kind, as JSON: combinations of a few, so that many tickets have many of them."""

    def room() -> str:
        return f"{chance.choice('ABCDE')}-{chance.randrange(100, 900)}"

    found: dict[str, list[str]] = {
        "subject": [f"{chance.choice(SUBJECTS)} ({room()})" for _ in range(256)],
        "text": [" ".join(chance.sample(SENTENCES, chance.choice((1, 2, 2, 3)))) + f" {room()}" for _ in range(512)],
        "reason": [
            "needs a specialist",
            "需要二线支持",
            "the customer asked for it",
            "outage of the site",
            "按合同升级",
        ],
        "party": ["the network provider", "Druckerservice Nord", "供应商", "the landlord", "Logistics Ltd"],
        "value": [room() for _ in range(64)],
        "copy": [f"copy{number}@firm.example" for number in range(64)],
        "source": [
            f"10.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(1, 255)}" for _ in range(256)
        ],
    }
    return {kind: [to_json(one) for one in some] for kind, some in found.items()}


def lengths(number: int) -> list[int]:
    """Give the numbers of events of so many lives, from the shortest to the longest."""
    beyond = NormalDist(math.log(MEDIAN_EVENTS - FEWEST_EVENTS), SPREAD)
    return [FEWEST_EVENTS + round(math.exp(beyond.inv_cdf((place + 0.5) / number))) for place in range(number)]


def play(number: int, teams: Sequence[Team], agents: Sequence[Agent], chance: random.Random) -> list[tuple[Step, ...]]:
    """Play so many lives with the domain's own ticket, in no order of length."""
    found = [Life(length, teams, agents, chance).steps() for length in lengths(number)]
    chance.shuffle(found)
    return found


class Life:
    """One life of a ticket between a requester, who is left open, and agents of the desk."""

    def __init__(self, length: int, teams: Sequence[Team], agents: Sequence[Agent], chance: random.Random) -> None:
        self._length = length
        self._chance = chance
        self._teams = teams
        self._agents = agents
        self._agent = chance.choice(agents)
        self._by_api = self._happens(0.1)
        self._texts = 0
        self._version = 0

    def steps(self) -> tuple[Step, ...]:
        """Live the life to its end and give it as templates."""
        ticket = self._open()
        self._version = 1
        while self._version < self._length - 2:
            try:
                self._do(ticket, self._next(ticket.status))
            except Rejected:
                continue
            self._version = ticket.version  # which what changed nothing leaves as it was
        self._do(ticket, "note" if ticket.status is Status.SOLVED else "solve")
        self._version = ticket.version
        ticket.close(act=self._by_agent())
        return tuple(template(event) for event in ticket.collect_events())  # type: ignore[arg-type]

    def _next(self, status: Status) -> str:
        if self._version == 1 and self._happens(0.9):
            return "assign"
        if status is Status.SOLVED:
            return self._chance.choice(("reopen", "reopen", "message", "note"))
        if status in {Status.PENDING, Status.ON_HOLD} and self._happens(0.5):
            return self._chance.choice(("resume", "message"))
        return self._chance.choices(tuple(SHARES), tuple(SHARES.values()))[0]

    def _open(self) -> Ticket:
        chance = self._chance
        by_phone, graded = self._happens(0.2), self._happens(0.3)
        return Ticket.open(
            ticket_id=UUID(int=0),
            requester_id=REQUESTER,
            subject=self._text("subject"),
            body=self._text("text"),
            channel=Channel.PHONE if by_phone else chance.choice((Channel.EMAIL, Channel.WEB, Channel.CHAT)),
            type=chance.choice((TicketType.INCIDENT, TicketType.INCIDENT, *TicketType)),
            priority=None if graded else chance.choices(tuple(Priority), (2, 5, 2, 1))[0],
            impact=chance.choice(tuple(Grade)) if graded else None,
            urgency=chance.choice(tuple(Grade)) if graded else None,
            category=chance.choice((*CATEGORIES, None)),
            tags=chance.sample(TAGS, chance.choice((0, 0, 0, 1, 2))),
            act=self._by_agent() if by_phone else self._by_customer(),
        )

    def _do(self, ticket: Ticket, what: str) -> None:  # noqa: C901, PLR0912 - one case a command
        """Give one command. Raises Rejected."""
        chance = self._chance
        match what:
            case "assign":
                self._agent = chance.choice(self._agents)
                ticket.assign(agent=self._agent, team=chance.choice(self._teams), act=self._by_agent())
            case "unassign":
                ticket.unassign(act=self._by_agent())
            case "transfer":
                ticket.transfer(team=chance.choice(self._teams), act=self._by_agent("reason"))
            case "escalate":
                ticket.escalate(level=ticket.level + 1, team=chance.choice(self._teams), act=self._by_agent("reason"))
            case "reply":
                ticket.reply(text=self._text("text"), agent_id=self._agent.id, act=self._by_agent())
            case "message":
                ticket.record_customer_message(text=self._text("text"), channel=Channel.EMAIL, act=self._by_customer())
            case "note":
                ticket.add_note(text=self._text("text"), act=self._by_agent())
            case "priority":
                ticket.change_priority(priority=chance.choice(tuple(Priority)), act=self._by_agent())
            case "category":
                ticket.categorise(category=chance.choice(CATEGORIES), act=self._by_agent())
            case "type":
                ticket.change_type(type=chance.choice(tuple(TicketType)), act=self._by_agent())
            case "subject":
                ticket.change_subject(subject=self._text("subject"), act=self._by_agent())
            case "tag":
                ticket.tag(tags=(chance.choice(TAGS),), act=self._by_agent())
            case "untag":
                ticket.untag(tags=ticket.tags[:1], act=self._by_agent())
            case "field":
                ticket.set_custom_field(name="room", value=self._text("value"), act=self._by_agent())
            case "copy":
                ticket.add_cc(address=self._text("copy"), act=self._by_agent())
            case "wait":
                act = self._by_agent()
                ticket.set_pending(wake_at=chance.choice((None, *(act.at + later for later in WAKE_AFTER))), act=act)
            case "hold":
                ticket.put_on_hold(third_party=self._text("party"), act=self._by_agent())
            case "resume":
                ticket.resume(act=self._by_agent())
            case "solve":
                code = chance.choice(("fixed", "fixed", "explained", "workaround", "duplicate"))
                ticket.solve(resolution_code=code, act=self._by_agent())
            case "reopen":
                ticket.reopen(act=self._by_agent("reason"))

    def _happens(self, share: float) -> bool:
        return self._chance.random() < share

    def _text(self, kind: str) -> str:
        self._texts += 1
        return f"\ue000{kind}{self._texts}"

    def _by_agent(self, reason: str | None = None) -> Act:
        return self._act(self._agent.id, Role.AGENT, Channel.API if self._by_api else Channel.WEB, reason)

    def _by_customer(self) -> Act:
        return self._act(REQUESTER, Role.CUSTOMER, Channel.EMAIL, None)

    def _act(self, actor: UUID, role: Role, channel: Channel, reason: str | None) -> Act:
        by_api = channel is Channel.API
        return Act(
            BEGINNING + self._version * BETWEEN_STEPS,
            Provenance(
                actor_id=actor,
                role=role,
                channel=channel,
                client="crm-connector/3.1" if by_api else None,
                command_id=COMMAND,
            ),
            None if reason is None else self._text(reason),
            self._text("source") if by_api else None,
        )


SHARES: Final = {
    "reply": 28,
    "message": 18,
    "note": 14,
    "wait": 7,
    "assign": 6,
    "solve": 5,
    "tag": 4,
    "priority": 4,
    "hold": 4,
    "transfer": 3,
    "escalate": 3,
    "category": 3,
    "field": 3,
    "untag": 1,
    "unassign": 1,
    "subject": 1,
    "type": 1,
    "copy": 1,
}
"""How often each command comes in the middle of a life; of a solved ticket and of one that waits see `Life`."""


def template(event: Event) -> Step:
    """Turn an event of a life into a template, laid out as `storage.codec.encode` does."""
    values = event.personal_values()
    sealed = tuple(
        Sealed(field, None if (subject := event.subject_of(field)) == REQUESTER else subject, *_text_of(value))
        for field, value in values.items()
    )
    moments: list[Moment] = []
    picked: list[int] = []

    def blank(found: re.Match[bytes]) -> bytes:
        text = found.group().decode()
        if text == str(COMMAND):
            picked.append(COMMAND_ID)
        elif text == str(REQUESTER):
            picked.append(REQUESTER_ID)
        elif text == "%b":
            picked.append(OWN + sum(place >= OWN for place in picked) - len(moments))
        elif (at := datetime.fromisoformat(text)) == event.timestamp:
            picked.append(AT)
        else:
            step, later = divmod(at - BEGINNING, BETWEEN_STEPS)
            picked.append(OWN + len(sealed) + len(moments))
            moments.append(Moment(step, later // timedelta(microseconds=1)))
        return b"%b"

    state = event.state_json().replace(b"%", b"%%")
    if sealed:
        state = b'%b,"commitments":{%b}}' % (
            state[:-1],
            b",".join(b'"%b":"%%b"' % one.field.encode() for one in sealed),
        )
    state = _BLANK.sub(blank, state)
    boxes = b"{%b}" % b",".join(b'"%b":"%%b"' % one.field.encode() for one in sealed)
    return Step(event.TOPIC, state, tuple(picked), sealed, boxes if sealed else b"", tuple(moments))


def _text_of(value: Any) -> tuple[str, int]:
    found = _TEXT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        message = f"a personal value of a life is not one of the texts made up for it: {value!r}"
        raise TypeError(message)
    return found[1], int(found[2])

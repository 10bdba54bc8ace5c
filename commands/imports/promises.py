"""Which promises imported tickets go by: chosen while they are recorded, by what was told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic_core import from_json, to_json

from commands.imports.parcel import Fact
from domain import ticket_events as happened
from domain.customer_events import Tier
from domain.sla_policy import Attributes
from domain.ticket_breach_events import SlaAnnouncementsAsked
from domain.ticket_sla_events import SlaTermsChanged, TermsCause

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from commands.imports.parcel import Standing
    from domain.service_levels import Book
    from domain.sla_terms import SlaTerms

OPENED: Final = happened.Opened.TOPIC
REQUESTER_CHANGED: Final = happened.RequesterChanged.TOPIC
PROMISES: Final = "ticket.sla_"
"""How the topics begin of what a desk says of its promises about a ticket, which no source tells."""

_LOOKED_AT: Final[dict[str, tuple[str, ...]]] = {
    happened.Assigned.TOPIC: ("team",),
    happened.Transferred.TOPIC: ("team",),
    happened.Escalated.TOPIC: ("team",),
    happened.PriorityChanged.TOPIC: ("priority",),
    happened.TypeChanged.TOPIC: ("kind",),
    happened.Categorised.TOPIC: ("category",),
    happened.Tagged.TOPIC: ("tags",),
    happened.Untagged.TOPIC: ("tags",),
    REQUESTER_CHANGED: (),
    OPENED: ("priority", "kind", "channel", "category", "tags"),
}
"""Event → what policies look at in it, as `Attributes.read` calls it."""
_STORED_AS: Final = {"team": "team_id", "kind": "type"}


def with_terms(
    told: Sequence[Fact], row_ends: set[int], tiers: Mapping[UUID, Tier], book: Book, standing: Standing
) -> list[Fact]:
    """Give what the log lacks of a ticket, with the terms it goes by and numbered on from what the log has.

    Terms are chosen at the opening and after each of the source's rows, whose last events `row_ends` names, where it
    made another policy hold: as a command would. `tiers` are the requesters'.
    """
    if not book.policies and all(fact.TOPIC != REQUESTER_CHANGED for fact in told):
        return [_numbered(fact, number, tiers) for number, fact in _news(told, standing)]
    teller = _Teller(tiers, book, standing)
    for number, fact in enumerate(told, start=1):
        teller.tell(fact, new=number > standing.known)
        if number in row_ends:
            teller.choose(fact, new=number > standing.known)
    return teller.facts


def _news(told: Sequence[Fact], standing: Standing) -> Iterator[tuple[int, Fact]]:
    return enumerate(told[standing.known :], start=standing.version + 1)


def with_announcements(facts: Sequence[Fact]) -> list[Fact]:
    """Give a new ticket's events, the last of them asking that what came of its promises be announced."""
    last = facts[-1]
    said = from_json(last.state)
    event = SlaAnnouncementsAsked(
        originator_id=last.originator_id,
        originator_version=last.originator_version + 1,
        timestamp=said["timestamp"],
        by=said["by"],
        requester_id=said["requester_id"],
    )
    stream, version = last.originator_id, event.originator_version
    return [*facts, Fact(stream, event.TOPIC, version, event.state_json(), {}, stream)]


class _Teller:
    """A ticket as far as it was told, and what its policy was chosen by."""

    def __init__(self, tiers: Mapping[UUID, Tier], book: Book, standing: Standing) -> None:
        self.facts: list[Fact] = []
        self._tiers = tiers
        self._book = book
        self._version = standing.version
        self._terms = standing.terms
        self._tier = standing.tier
        self._is: dict[str, Any] = {"team": None, "tier": None}
        self._chosen: str | None = None

    def tell(self, fact: Fact, *, new: bool) -> None:
        """Take an event in; a `new` one is to be recorded."""
        looked_at = _LOOKED_AT.get(fact.TOPIC)
        if looked_at is not None:
            state = from_json(fact.state)
            self._is |= {name: state.get(_STORED_AS.get(name, name)) for name in looked_at}
            if fact.TOPIC in {OPENED, REQUESTER_CHANGED}:
                self._is["tier"] = self._tiers.get(UUID(state["requester_id"]), Tier.STANDARD)
        terms = None
        if fact.TOPIC == OPENED:
            chosen = self._book.choose(self._attributes())
            self._chosen = None if chosen is None else chosen.policy
            if new:
                terms, self._terms, self._tier = chosen, chosen, self._is["tier"]
        if new:
            self._version += 1
            self.facts.append(_numbered(fact, self._version, self._tiers, terms))

    def choose(self, fact: Fact, *, new: bool) -> None:
        """Choose terms after a row whose last event this is."""
        chosen = self._book.choose(self._attributes())
        policy = None if chosen is None else chosen.policy
        terms = self._terms if policy == self._chosen else chosen
        self._chosen = policy
        tier: Tier | None = self._is["tier"]
        if not new or (terms, tier) == (self._terms, self._tier):
            return
        state = from_json(fact.state)
        self._version += 1
        event = SlaTermsChanged(
            originator_id=fact.originator_id,
            originator_version=self._version,
            timestamp=state["timestamp"],
            by=state["by"],
            requester_id=state["requester_id"],
            terms=terms,
            previous_terms=self._terms,
            tier=tier,
            previous_tier=self._tier,
            cause=TermsCause.TICKET_CHANGED,
        )
        self._terms, self._tier = terms, tier
        stream, version = fact.originator_id, self._version
        self.facts.append(Fact(stream, event.TOPIC, version, event.state_json(), {}, stream))

    def _attributes(self) -> Attributes:
        return Attributes.read(**self._is | {"tags": tuple(self._is["tags"])})


def _numbered(fact: Fact, number: int, tiers: Mapping[UUID, Tier], terms: SlaTerms | None = None) -> Fact:
    """Give an event as the stream's next; an opening with its requester's tier, and with terms."""
    state = fact.state
    if fact.TOPIC == OPENED:
        # Its personal values are its requester's. Everybody whom a source names begins as standard.
        promised: dict[str, Any] = {"tier": tiers.get(fact.subject, Tier.STANDARD)}
        if terms is not None:
            promised["terms"] = terms.model_dump(mode="json", exclude_none=True)
        state = b"%b,%b" % (state[:-1], to_json(promised)[1:])
    return Fact(fact.originator_id, fact.TOPIC, number, state, fact.values, fact.subject)

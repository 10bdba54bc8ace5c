"""The calendars and policies of a desk: adopted in versions that stay as they are, retired, and chosen for tickets."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self, TypeVar, cast
from uuid import UUID

from eventsourcing.domain import OriginatorIDError

from domain import calendar_faults, policy_faults
from domain.business_time import Hours
from domain.calendar import CalendarTerms
from domain.event import Aggregate, Event, Rejected
from domain.sla_policy import Attributes, Match, PolicyTerms, standard_policy
from domain.sla_terms import SlaTerms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from eventsourcing.domain import TAggregate

    from domain.event import Act


__all__ = ["EMPTY_BOOK", "SERVICE_LEVELS_ID", "Attributes", "Book", "OpenTickets", "ServiceLevels"]

SERVICE_LEVELS_ID: Final = UUID("0b7a5c0e-3c55-5d0c-9d1f-6f0f3c1f2a11")
"""The stream that a workspace's calendars and policies are kept in; every workspace has a log of its own."""

OpenTickets = Literal["move", "keep"]
"""What happens to tickets that are open: they go by what is new, or stay with what they were promised."""

T = TypeVar("T")

HOURS_REMEMBERED: Final = 256

STANDARD_POLICY: Final = standard_policy()
NO_POLICY: Final = PolicyTerms(targets=())


class UnknownCalendar(Rejected):
    """A policy counts by a calendar that has been adopted."""

    problem = "unknown-calendar"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        there_are = f"there are: {', '.join(known)}" if known else "none has been adopted yet"
        super().__init__(f"no calendar {name!r} has been adopted; {there_are}", calendar=name, known=known)


class UnknownPolicy(Rejected):
    """Only a policy that is in force can be retired."""

    problem = "unknown-policy"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        there_are = f"in force are: {', '.join(known)}" if known else "none is in force"
        super().__init__(f"no policy {name!r} is in force; {there_are}", policy=name, known=known)


class ServiceLevelsEvent(Event):
    """Base of what happens to a desk's calendars and policies. Any of them may be the first of the stream.

    `open_tickets` says what became of tickets that were open: see `OpenTickets`.
    """

    name: str
    open_tickets: OpenTickets

    def mutate(self, aggregate: TAggregate | None) -> TAggregate | None:
        """Take the next step, from nothing where it is the first."""
        if aggregate is None:
            if self.originator_id != SERVICE_LEVELS_ID:
                raise OriginatorIDError(self.originator_id, SERVICE_LEVELS_ID)
            aggregate = cast("TAggregate", ServiceLevels.unwritten(self.timestamp))
        return super().mutate(aggregate)

    def apply(self, levels: ServiceLevels) -> None:
        """Turn the page."""
        levels.book = levels.book.extended(self)


class CalendarAdopted(ServiceLevelsEvent):
    """A version of a calendar was adopted; its terms never change."""

    TOPIC: ClassVar[str] = "service_levels.calendar_adopted"

    version: int
    terms: CalendarTerms


class PolicyAdopted(ServiceLevelsEvent):
    """A version of a policy was adopted, instead of the one before; its terms never change."""

    TOPIC: ClassVar[str] = "service_levels.policy_adopted"

    version: int
    terms: PolicyTerms


class PolicyRetired(ServiceLevelsEvent):
    """A policy is chosen for no ticket any more; its versions are still told apart by those that went by them."""

    TOPIC: ClassVar[str] = "service_levels.policy_retired"


class Book:
    """Every version of every calendar and policy, as of some moment. It never changes: adopting gives another book."""

    __slots__ = ("_choices", "_hours", "calendars", "policies", "retired", "version")

    def __init__(
        self,
        calendars: Mapping[str, tuple[CalendarTerms, ...]],
        policies: Mapping[str, tuple[PolicyTerms, ...]],
        retired: frozenset[str] = frozenset(),
        *,
        version: int = 0,
    ) -> None:
        """Hold versions by name, the first of each in front; `retired` policies are chosen no more.

        `version` is that of the last event of the stream that is in it.
        """
        self.calendars: Final = calendars
        self.policies: Final = policies
        self.retired: Final = retired
        self.version: Final = version
        self._hours: Final[dict[tuple[str, int], Hours]] = {}
        in_force = [(versions[-1].order, name) for name, versions in policies.items() if name not in retired]
        self._choices: Final = tuple(self._choice(name) for _, name in sorted(in_force))

    def _choice(self, name: str) -> tuple[Match, SlaTerms]:
        versions = self.policies[name]
        calendar = versions[-1].calendar
        return versions[-1].match, SlaTerms(
            policy=name,
            policy_version=len(versions),
            calendar=calendar,
            calendar_version=None if calendar is None else len(self.calendars.get(calendar, ())),
        )

    @classmethod
    def of(cls, events: Iterable[Event]) -> Book:
        """Give the book as it is after these events, from the first of their stream on; others are passed over."""
        book = EMPTY_BOOK
        for event in events:
            book = book.extended(event)
        return book

    def extended(self, event: Event) -> Book:
        """Give the book as it is after an event. One that is in it already, or of another stream, changes nothing."""
        if not isinstance(event, ServiceLevelsEvent) or event.originator_version <= self.version:
            return self
        match event:
            case CalendarAdopted():
                book = self.with_calendar(event.name, event.terms)
            case PolicyAdopted():
                book = self.with_policy(event.name, event.terms)
            case _:
                book = Book(self.calendars, self.policies, self.retired | {event.name})
        return Book(book.calendars, book.policies, book.retired, version=event.originator_version)

    def with_calendar(self, name: str, terms: CalendarTerms) -> Book:
        """Give the book that also has this, as the latest version of the calendar."""
        calendars = {**self.calendars, name: (*self.calendars.get(name, ()), terms)}
        return Book(calendars, self.policies, self.retired, version=self.version)

    def with_policy(self, name: str, terms: PolicyTerms) -> Book:
        """Give the book that also has this, as the latest version of the policy, which is then in force."""
        policies = {**self.policies, name: (*self.policies.get(name, ()), terms)}
        return Book(self.calendars, policies, self.retired - {name}, version=self.version)

    @property
    def in_force(self) -> tuple[str, ...]:
        """Name the policies that tickets may be given, in the order in which they are tried."""
        return tuple(terms.policy for _, terms in self._choices if terms.policy is not None)

    @property
    def asks_for_tiers(self) -> bool:
        """Whether it may depend on the customer's tier what a ticket is promised."""
        return any(
            one.tiers is not None
            for match, terms in self._choices
            for one in (match, *(target.match for target in self.policy(terms).targets))
        )

    def choose(self, ticket: Attributes) -> SlaTerms | None:
        """Give the terms that a ticket goes by from now on.

        None where no policy was ever adopted; terms without a policy, which promise nothing, where none holds.
        """
        for match, terms in self._choices:
            if match.holds(ticket):
                return terms
        return _NOTHING if self.policies else None

    def policy(self, terms: SlaTerms | None) -> PolicyTerms:
        """Give the version of a policy that terms name. Raises LookupError where the book does not have it."""
        if terms is None:
            return STANDARD_POLICY
        if terms.policy is None:
            return NO_POLICY
        return _version(self.policies, "policy", terms.policy, terms.policy_version)

    def hours(self, terms: SlaTerms | None) -> Hours | None:
        """Give the hours of the calendar that terms name, None where they name none: always open.

        Raises LookupError where the book does not have it.
        """
        if terms is None or terms.calendar is None:
            return None
        return self.calendar(terms.calendar, terms.calendar_version)

    def calendar(self, name: str, version: int | None) -> Hours:
        """Give the hours of a calendar as of one of its versions. Raises LookupError where the book does not have it."""
        found = None if version is None else self._hours.get((name, version))
        if version is None or found is None:
            last = _version(self.calendars, "calendar", name, version)
            versions = (*self.calendars[name][: version or 0][:-1], last)
            found = _compiled(tuple(one.model_dump_json() for one in versions))
            self._hours[name, version or 0] = found
        return found


_NOTHING: Final = SlaTerms()
EMPTY_BOOK: Final = Book({}, {})
"""The book of a desk that has adopted nothing."""


def _version(versions: Mapping[str, tuple[T, ...]], kind: str, name: str, version: int | None) -> T:
    held = versions.get(name, ())
    if version is None or not 1 <= version <= len(held):
        message = f"there is no version {version} of the {kind} {name!r}"
        raise LookupError(message)
    return held[version - 1]


@lru_cache(HOURS_REMEMBERED)
def _compiled(versions: tuple[str, ...]) -> Hours:
    """Compile what versions of a calendar say. By what they say, since a page of a view may bring its book anew."""
    return Hours.of([CalendarTerms.model_validate_json(version) for version in versions])


class ServiceLevels(Aggregate):
    """What a desk promises, and by which hours it counts."""

    TOPIC: ClassVar[str] = "service_levels"
    Event = ServiceLevelsEvent

    def __init__(self) -> None:
        """Start from nothing adopted."""
        self.book: Book = EMPTY_BOOK

    @classmethod
    def unwritten(cls, at: datetime) -> Self:
        """Give those of a desk that has adopted nothing: a stream that does not exist yet, at version 0."""
        made = cls.__new__(cls)
        made.__base_init__(SERVICE_LEVELS_ID, 0, at)
        made.__init__()  # type: ignore[misc]
        return made

    def adopt_calendar(self, *, name: str, terms: CalendarTerms, open_tickets: OpenTickets = "move", act: Act) -> None:
        """Adopt a version of a calendar; the terms of the latest one again change nothing. Raises UnusableCalendar."""
        versions = self.book.calendars.get(name, ())
        if versions and versions[-1] == terms:
            return
        calendar_faults.verify(terms)
        self.record(CalendarAdopted, act, name=name, version=len(versions) + 1, terms=terms, open_tickets=open_tickets)

    def adopt_policy(self, *, name: str, terms: PolicyTerms, open_tickets: OpenTickets = "move", act: Act) -> None:
        """Adopt a version of a policy; the terms that are in force again change nothing.

        Raises UnusablePolicy, UnknownCalendar.
        """
        policy_faults.verify(terms)
        if terms.calendar is not None and terms.calendar not in self.book.calendars:
            raise UnknownCalendar(terms.calendar, self.book.calendars)
        versions = self.book.policies.get(name, ())
        if versions and versions[-1] == terms and name not in self.book.retired:
            return
        self.record(PolicyAdopted, act, name=name, version=len(versions) + 1, terms=terms, open_tickets=open_tickets)

    def retire_policy(self, *, name: str, open_tickets: OpenTickets = "move", act: Act) -> None:
        """Choose a policy for no ticket any more; retiring it again changes nothing. Raises UnknownPolicy."""
        if name not in self.book.policies:
            raise UnknownPolicy(name, self.book.in_force)
        if name not in self.book.retired:
            self.record(PolicyRetired, act, name=name, open_tickets=open_tickets)

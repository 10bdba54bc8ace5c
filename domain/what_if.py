"""What tickets would have gone by under other policies and calendars, by what was known then or by what is known now."""

from __future__ import annotations

from bisect import bisect_right
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec.structs import replace

from domain import calendar_faults, policy_faults
from domain.event import Rejected
from domain.service_levels import EMPTY_BOOK, Book, UnknownCalendar
from domain.sla_policy import Attributes, Match
from domain.spans import microseconds
from domain.ticket_timeline import PLACES, TERMS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from domain import ticket_timeline
    from domain.business_time import Hours
    from domain.calendar import CalendarTerms
    from domain.service_levels import ServiceLevelsEvent
    from domain.sla_policy import PolicyTerms
    from domain.sla_terms import SlaTerms
    from domain.ticket_timeline import Fact, Terms, Timeline

    Choose = Callable[[ticket_timeline.Attributes, Terms | None, int, Terms | None], Terms | None]
    """By what a ticket is, what its record names, when, and what it has gone by so far, to what it goes by."""

REMEMBERED: Final = 50_000
GIVEN: Final = 0
"""The version of a policy that is given; a desk's own count from 1."""
NOTHING: Final[Terms] = (None, None, None, None)
"""Terms that promise nothing."""
_MATCHES: Final = tuple(Match.model_fields)


class Axis(StrEnum):
    """By what was known when."""

    AS_KNOWN = "as-known"
    AS_CORRECTED = "as-corrected"


class NothingToCompare(Rejected):
    """What is given would make no difference to any ticket, and so is likely not what was meant."""

    problem = "nothing-to-compare"


class Given(NamedTuple):
    """What is to be imagined.

    With `no_others` the policies are all there are, else they stand beside the desk's, in place of those of the same
    name. A calendar is as if adopted after all versions of the one of that name that are known.
    """

    policies: Mapping[str, PolicyTerms]
    no_others: bool
    calendars: Mapping[str, CalendarTerms]


NOTHING_GIVEN: Final = Given({}, no_others=False, calendars={})


class Adopted(NamedTuple):
    """The book as it was from an instant on, in microseconds since 1970."""

    since: int
    book: Book


def books_of(events: Iterable[ServiceLevelsEvent]) -> list[Adopted]:
    """Give every book there was, from the first on, by when each was adopted."""
    found = []
    book = EMPTY_BOOK
    for event in events:
        book = book.extended(event)
        found.append(Adopted(microseconds(event.timestamp), book))
    return found


class Side:
    """One of the two sides of a comparison: what each ticket goes by, and what that stands for.

    `kinds` of facts may change what is chosen. Without `choose` a ticket goes by what its record names.
    """

    def __init__(self, levels: Imagined, choose: Choose | None = None, kinds: frozenset[str] = frozenset()) -> None:
        self.levels: Final = levels
        self.own: Final = choose is None
        self._choose = choose
        self._kinds = kinds | {TERMS}

    def of(self, timeline: Timeline) -> Timeline:
        """Give a ticket's timeline with the terms of this side; the same one where they are those it names."""
        choose = self._choose
        if choose is None:
            return timeline
        kinds, attributes, own = self._kinds, timeline.attributes, timeline.terms
        first = now = choose(attributes, own, timeline.opened, None)
        for fact in timeline.facts:
            if fact[1] in kinds:
                break
        else:
            return timeline if first == own else replace(timeline, terms=first)
        facts: list[Fact] = []
        for fact in timeline.facts:
            at, kind, value = fact
            if kind == TERMS:
                own = value
            else:
                facts.append(fact)
                place = PLACES.get(kind)
                if place is not None:
                    attributes = (*attributes[:place], value, *attributes[place + 1 :])
            if kind in kinds:
                chosen = choose(attributes, own, at, now)
                if chosen != now:
                    facts.append((at, TERMS, chosen))
                    now = chosen
        found = tuple(facts)
        same = first == timeline.terms and found == timeline.facts
        return timeline if same else replace(timeline, terms=first, facts=found)


class Imagined:
    """What terms stand for where some policies and calendars are given.

    A given policy is version GIVEN. Of a given calendar, the version in terms is below 0 and says after which of the
    desk's own the given one comes: so terms that name what is given are never those of a record.
    """

    def __init__(self, book: Book, given: Given = NOTHING_GIVEN) -> None:
        self.book: Final = book
        self._given: Final = given
        self._hours: dict[tuple[str, int], Hours] = {}
        self._known: dict[int, tuple[SlaTerms, Hours | None]] = {}

    def policy(self, terms: SlaTerms | None, /) -> PolicyTerms:
        """Give the policy that terms name. Raises LookupError."""
        if terms is not None and terms.policy is not None and terms.policy_version == GIVEN:
            return self._given.policies[terms.policy]
        return self.book.policy(terms)

    def hours(self, terms: SlaTerms | None, /) -> Hours | None:
        """Give the hours of the calendar that terms name; None: always open. Raises LookupError."""
        if terms is None or terms.calendar is None:
            return None
        # By identity, as a million tickets share a few terms, and what is kept here holds them.
        known = self._known.get(id(terms))
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known[id(terms)] = (terms, self._look_up(terms.calendar, terms.calendar_version or 0))
        return known[1]

    def _look_up(self, name: str, number: int) -> Hours | None:
        if number >= 0:
            return self.book.calendar(name, number)
        found = self._hours.get((name, number))
        if found is None:
            versions = (*self.book.calendars.get(name, ())[: -1 - number], self._given.calendars[name])
            found = self._hours[name, number] = Book({name: versions}, {}).calendar(name, len(versions))
        return found

    def names(self, terms: SlaTerms | None) -> tuple[str, str | None]:
        """Say by which policy and calendar somebody goes."""
        if terms is None:
            return "the standard promises", None
        policy = "no policy" if terms.policy is None else terms.policy
        if terms.policy is not None:
            policy += " (given)" if terms.policy_version == GIVEN else f" {terms.policy_version}"
        if terms.calendar is None:
            return policy, None
        given = (terms.calendar_version or 0) < 0
        return policy, f"{terms.calendar} (given)" if given else f"{terms.calendar} {terms.calendar_version}"


def sides(axis: Axis, books: Sequence[Adopted], given: Given) -> tuple[Side, Side]:
    """Give what applied and what would have.

    Raises NothingToCompare, UnknownCalendar for one that nobody has, UnusableCalendar and UnusablePolicy.
    """
    latest = books[-1].book if books else EMPTY_BOOK
    _check(latest, given)
    if axis is Axis.AS_CORRECTED:
        choice = _Choice(latest)
        then = Side(Imagined(latest), lambda attributes, _own, _at, _held: choice.of(attributes), choice.kinds)
    else:
        then = Side(Imagined(latest))
    if given.policies or given.no_others:
        chooser = _Chooser(axis, books, given)
        return then, Side(Imagined(latest, given), chooser.choose, chooser.kinds)
    calendars = _Calendars(axis, books, given)
    if axis is Axis.AS_CORRECTED:
        return then, Side(
            then.levels if not given.calendars else Imagined(latest, given),
            lambda attributes, own, at, held: calendars.instead(choice.of(attributes), own, at, held),
            choice.kinds,
        )
    return then, Side(Imagined(latest, given), lambda _, own, at, held: calendars.instead(own, own, at, held))


def _check(latest: Book, given: Given) -> None:
    if not given.policies and not given.calendars:
        raise NothingToCompare("neither a policy nor a calendar is given")  # noqa: EM101, TRY003
    known = {*latest.calendars, *given.calendars}
    for terms in given.policies.values():
        policy_faults.verify(terms)
        if terms.calendar is not None and terms.calendar not in known:
            raise UnknownCalendar(terms.calendar, known)
    own = () if given.no_others else [terms for versions in latest.policies.values() for terms in versions]
    used = {terms.calendar for terms in (*given.policies.values(), *own)}
    for name, calendar in given.calendars.items():
        calendar_faults.verify(calendar)
        if name not in used:
            message = f"no policy counts by a calendar {name!r}"
            raise NothingToCompare(message, calendar=name)


class _Choice:
    """What a book chooses, remembered by what its policies look at."""

    def __init__(self, book: Book) -> None:
        self._book = book
        matches = [book.policies[name][-1].match for name in book.in_force]
        asked = {name for match in matches for name in _MATCHES if getattr(match, name) is not None}
        self._places = tuple(place for place, name in enumerate(_MATCHES) if name in asked)
        self.kinds: Final = frozenset(kind for kind, place in PLACES.items() if place in self._places)
        self._known: dict[tuple[Any, ...], Terms | None] = {}

    def of(self, attributes: ticket_timeline.Attributes) -> Terms | None:
        key = tuple([attributes[place] for place in self._places])
        try:
            return self._known[key]
        except KeyError:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            terms = self._book.choose(Attributes.read(*attributes))
            found = self._known[key] = None if terms is None else _plain(terms)
            return found


def _plain(terms: SlaTerms) -> Terms:
    return (terms.policy, terms.policy_version, terms.calendar, terms.calendar_version)


class _Calendars:
    """Which version of a calendar was known when, or is known now."""

    def __init__(self, axis: Axis, books: Sequence[Adopted], given: Given) -> None:
        self._by_record = axis is Axis.AS_KNOWN
        self._given = given.calendars
        self._adopted: dict[str, list[int]] = {}
        for since, book in books:
            for name, versions in book.calendars.items():
                known = self._adopted.setdefault(name, [])
                if len(versions) > len(known):
                    known.append(since)

    def instead(self, terms: Terms | None, own: Terms | None, at: int, held: Terms | None) -> Terms | None:
        """Give terms by a calendar that is given where they name that."""
        return terms if terms is None or terms[2] not in self._given else self.known(terms, own, at, held)

    def known(self, terms: Terms, own: Terms | None, at: int, held: Terms | None) -> Terms:
        """Give terms with the calendar in the version that counts."""
        policy, version, name, _ = terms
        if name is None:
            return terms
        if name not in self._given:
            return (policy, version, name, self._version(terms, own, at, held))
        # By itself it says all there is to be said, whatever it comes after.
        after = 0 if self._given[name].valid_from is None else self._version(terms, own, at, held)
        return (policy, version, name, -1 - after)

    def _version(self, terms: Terms, own: Terms | None, at: int, held: Terms | None) -> int:
        """Give the version that counts: as the record has it, else as it was when the policy was chosen."""
        name = terms[2] or ""
        adopted = self._adopted.get(name, [])
        if not self._by_record:
            return len(adopted)
        if own is not None and own[2] == name and own[3] is not None:
            return own[3]
        if held is not None and held[:3] == terms[:3] and held[3] is not None:
            return held[3] if held[3] >= 0 else -1 - held[3]
        # Before the first was adopted, as for tickets of an import, the first is what was known.
        return max(bisect_right(adopted, at), min(1, len(adopted)))


class _Chooser:
    """What tickets go by where policies are given: these alone, or these and the desk's of other names.

    As known then, the policy that a ticket's record names stands for all of the desk's: it was chosen before them.
    """

    def __init__(self, axis: Axis, books: Sequence[Adopted], given: Given) -> None:
        latest = books[-1].book if books else EMPTY_BOOK
        self._by_record = axis is Axis.AS_KNOWN
        self._policies = given.policies
        self._latest = latest
        self._calendars = _Calendars(axis, books, given)
        calendars = {**latest.calendars, **{name: (terms,) for name, terms in given.calendars.items()}}
        alone = Book(calendars, {name: (terms,) for name, terms in given.policies.items()})
        self._given = _Choice(alone)
        self._since: list[int] = []
        self._others: list[_Choice] = []
        if not given.no_others:
            self._since = [since for since, _ in books]
            self._others = [_Choice(_without(book, given.policies)) for _, book in books]
        self.kinds: Final = self._given.kinds.union(*(other.kinds for other in self._others))

    def choose(
        self, attributes: ticket_timeline.Attributes, own: Terms | None, at: int, held: Terms | None
    ) -> Terms | None:
        """Let what is given compete with the desk's own by order and name."""
        other = self._other(attributes, own, at, held)
        chosen = self._given.of(attributes)
        if chosen is not None and chosen[0] is not None and self._comes_first(chosen[0], other):
            return self._calendars.known((chosen[0], GIVEN, chosen[2], None), own, at, held)
        return self._calendars.instead(other, own, at, held)

    def _other(self, attributes: ticket_timeline.Attributes, own: Terms | None, at: int, held: Terms | None) -> Terms:
        if not self._others:
            return NOTHING
        if not self._by_record:
            return self._others[-1].of(attributes) or NOTHING
        if own is not None and own[0] not in self._policies:
            return own
        found = self._others[max(bisect_right(self._since, at) - 1, 0)].of(attributes) or NOTHING
        return self._calendars.known(found, own, at, held)

    def _comes_first(self, name: str, other: Terms) -> bool:
        if other[0] is None or other[1] is None:
            return True
        theirs = self._latest.policies[other[0]][other[1] - 1]
        return (self._policies[name].order, name) < (theirs.order, other[0])


def _without(book: Book, names: Collection[str]) -> Book:
    policies = {name: versions for name, versions in book.policies.items() if name not in names}
    return Book(book.calendars, policies, book.retired)

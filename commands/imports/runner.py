"""A foreign log's way into ours: cases are told while earlier ones are on their way to the disk."""

from __future__ import annotations

import asyncio
import csv
import gc
import time
from collections import deque
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from commands.imports.format import Clock, ImportRefused
from commands.imports.reading import Case, Refusal, cases, survey
from commands.imports.story import Source
from commands.imports.summary import Summary
from commands.imports.telling import tell
from domain.agent import Agent
from domain.customer import Customer
from domain.team import Team
from domain.ticket_events import SourceStatusRecorded, TicketType
from storage.codec import UnreadableEvent, decode, encode
from storage.keyring import RootKeyError
from storage.log import Conflict, LogError, Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from uuid import UUID

    from commands.imports.format import Format
    from commands.imports.reading import Layout
    from commands.imports.story import Acquaintance, Story, Told
    from commands.imports.summary import Met
    from domain.event import Event
    from storage.database import Workspace
    from storage.log import Appended, StoredRow

CASES_AT_ONCE: Final = 64  # told in about 15 ms, so that the loop soon sends what waits
GROUPS_AHEAD: Final = 8  # told while the database makes the keys of the people in a group
CASES_IN_FLIGHT: Final = 1_000  # two full batches of the log: enough to keep it busy, little enough to hold


async def run_import(
    workspace: Workspace,
    format_: Format[Any],
    path: Path,
    *,
    zone: str | None = None,
    ticket_type: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    rejects_path: Path | None = None,
) -> Summary:
    """Import a foreign log and give the account of its rows.

    One case is one submission: all of its events and those of the people first met in it, or none. Cases go to
    the log in the order of the file, so that an import that was killed ends, run again, with the same log. What
    is there already is found by its foreign id; a case that has grown gets the rest, provided that what is there
    is what its earlier rows tell.

    `zone` is for times that name none, `ticket_type` for the tickets, both instead of the format's; `progress`
    is called with rows done and rows in all; refused rows go to `rejects_path` as well, as CSV. Raises
    ImportRefused where the file is no such log, and LogError where the log fails; then the same import may be
    run again.
    """
    started = time.perf_counter()
    zone = zone or format_.zone
    try:
        clock = Clock(format_.parse_time, ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = f"There is no time zone {zone!r}."
        raise ImportRefused(message) from None
    source = Source(format_.name, TicketType(ticket_type or format_.ticket_type), clock, f"desk import {format_.name}")
    layout = await asyncio.to_thread(survey, path, format_)
    summary = Summary(format_.name, str(path), zone, blank_lines=layout.blank_lines)
    with ExitStack() as stack:
        stack.enter_context(_rarer_collection())
        run = _Run(workspace, layout, source, summary, progress)
        if rejects_path is not None:
            summary.rejects_file = str(rejects_path)
            file = stack.enter_context(rejects_path.open("w", encoding="utf-8", newline=""))
            run.rejects = csv.writer(file)
            run.rejects.writerow(("line", "case", "reason"))
        await run.all()
    summary.seconds = time.perf_counter() - started
    return summary


@contextmanager
def _rarer_collection() -> Iterator[None]:
    """Let the collector of cyclic garbage look less often: events are none, and it took a quarter of the time."""
    thresholds = gc.get_threshold()
    gc.set_threshold(500_000, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


@dataclass(slots=True)
class _Telling:
    """A case told, on its way to the log."""

    case: Case[Any]
    story: Story
    known: int = 0
    """How many of its events the log has, once that is known."""
    people: Sequence[Acquaintance[Any]] = ()
    """Who is created with it."""

    def news(self) -> list[Event]:
        """Give what the log does not have, first the people, and mark these as on their way."""
        events = self.story.events[self.known :]
        self.people = [person for person in self.story.met.values() if not person.there] if events else []
        created: list[Event] = []
        for person in self.people:
            person.there = True
            created += person.who.pending_events
        return created + events

    def subjects(self) -> Iterator[UUID]:
        """Name the persons whose values its events hold: customers met, and agents created with it."""
        for (kind, _), person in self.story.met.items():
            if kind is Customer:
                yield person.id
        for person in self.people:
            if isinstance(person.who, Agent):
                yield person.id


class _Run:
    """One import under way."""

    def __init__(
        self,
        workspace: Workspace,
        layout: Layout[Any],
        source: Source,
        summary: Summary,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.workspace = workspace
        self.layout = layout
        self.source = source
        self.summary = summary
        self.progress = progress
        self.rejects: Any = None
        self.in_flight: deque[tuple[_Telling, asyncio.Future[Appended]]] = deque()

    async def all(self) -> None:
        """Tell every case, while those told before are looked up, sealed and appended in the same order."""
        groups: asyncio.Queue[list[_Telling | Refusal]] = asyncio.Queue(GROUPS_AHEAD)
        sender = asyncio.create_task(self._send_all(groups), name="import")
        try:
            items = cases(self.layout)
            while group := self._told(items):
                await self._put(groups, group, sender)
                await asyncio.sleep(0)  # lets what arrived from the database be sent on before the next group
            await self._put(groups, [], sender)
            await sender
        finally:
            sender.cancel()
            for _, future in self.in_flight:
                future.cancel()
            await asyncio.gather(sender, *(future for _, future in self.in_flight), return_exceptions=True)

    async def _put(
        self,
        groups: asyncio.Queue[list[_Telling | Refusal]],
        group: list[_Telling | Refusal],
        sender: asyncio.Task[None],
    ) -> None:
        while groups.full() and not sender.done():
            await asyncio.wait([sender], timeout=0.01)
        if sender.done():
            sender.result()
        groups.put_nowait(group)

    def _told(self, items: Iterator[Case[Any] | Refusal]) -> list[_Telling | Refusal]:
        return [
            item if isinstance(item, Refusal) else _Telling(item, tell(self.layout.format, self.source, item))
            for item in islice(items, CASES_AT_ONCE)
        ]

    async def _send_all(self, groups: asyncio.Queue[list[_Telling | Refusal]]) -> None:
        while group := await groups.get():
            await self._send(group)
        await self._settle(0)

    async def _send(self, group: Sequence[_Telling | Refusal]) -> None:
        """Look up what the log has of a group, and hand it the rest in the order of the file."""
        tellings: list[_Telling] = []
        for item in group:
            if isinstance(item, Refusal):
                self._refuse(item)
                self._count_rows(1)
            else:
                tellings.append(item)
        await self._look_up(tellings)
        news = [telling.news() for telling in tellings]
        await self.workspace.keyring.ensure({subject for telling in tellings for subject in telling.subjects()})
        for telling, events in zip(tellings, news, strict=True):
            if not events:
                self._account(telling)
            elif (submission := self._submission(telling, events)) is not None:
                self.in_flight.append((telling, self.workspace.log.submit(submission)))
        await self._settle(CASES_IN_FLIGHT)

    async def _look_up(self, tellings: Sequence[_Telling]) -> None:
        """Find which of the tickets and people the log has, and how much of each ticket."""
        strangers = {p.id: p for telling in tellings for p in telling.story.met.values() if p.there is None}
        tickets = [telling.story.ticket_id for telling in tellings]
        heads = await self.workspace.log.heads([*tickets, *strangers])
        for id_, person in strangers.items():
            person.there = id_ in heads
        await self._recognise([telling for telling in tellings if telling.story.ticket_id in heads])

    def _submission(self, telling: _Telling, events: Sequence[Event]) -> Submission | None:
        keyring = self.workspace.keyring
        try:
            rows = [encode(event, keyring) for event in events]
        except RootKeyError as error:
            self._refuse_from(telling, telling.known, f"cannot be recorded: {error}")
            for person in telling.people:
                person.there = None
            telling.people = ()
            self._account(telling)
            return None
        guards = {person.id: 0 for person in telling.people}
        guards[telling.story.ticket_id] = telling.known
        return Submission(rows, guards)

    async def _settle(self, most: int) -> None:
        """Wait until at most so many cases are in flight, and account for those that have arrived."""
        while self.in_flight and (len(self.in_flight) > most or self.in_flight[0][1].done()):
            telling, future = self.in_flight[0]
            try:
                appended = await future
            except Conflict:
                await self._again(telling)
            else:
                self.summary.last_position = appended.position
            self.in_flight.popleft()
            self._account(telling)

    async def _again(self, telling: _Telling) -> None:
        """Send a case once more that somebody else has written to meanwhile, such as another import of the file."""
        for _ in range(_ATTEMPTS):
            for person in telling.story.met.values():
                person.there = None
            telling.known = 0
            await self._look_up([telling])
            events = telling.news()
            await self.workspace.keyring.ensure(telling.subjects())
            submission = self._submission(telling, events) if events else None
            if submission is None:
                return
            try:
                self.summary.last_position = (await self.workspace.log.append(submission)).position
            except Conflict:
                continue
            return
        message = f"others keep writing to {telling.story.foreign_id}; run the import again"
        raise LogError(message)

    # What is there already

    async def _recognise(self, tellings: Sequence[_Telling]) -> None:
        """Find how much of each known ticket the log has; what contradicts it is refused."""
        log = self.workspace.log
        stored = await asyncio.gather(*(log.stream(telling.story.ticket_id) for telling in tellings))
        await self.workspace.keyring.load(row for rows in stored for row in rows)
        for telling, rows in zip(tellings, stored, strict=True):
            events = telling.story.events
            same = 0
            for row, event in zip(rows, events, strict=False):
                if not self._is(row, event):
                    break
                same += 1
            telling.known = same
            if same < len(rows) and same < len(events):
                self._refuse_from(telling, same, f"the ticket's own history differs from version {same + 1} on")

    def _is(self, row: StoredRow, event: Event) -> bool:
        """Tell whether a stored event is the one told now; personal values that are gone count as equal."""
        if row.topic != event.TOPIC:
            return False
        state = event.state_json()
        plain = row.personal is None and not event.personal_values()
        if plain and row.state == state:
            return True
        try:
            there: Event = decode(row, self.workspace.keyring).event
        except UnreadableEvent:
            return False
        if there.state_json() != state:
            return False
        values = event.personal_values()
        return all(values.get(name) == value or value == _ERASED for name, value in there.personal_values().items())

    def _refuse_from(self, telling: _Telling, version: int, reason: str) -> None:
        """Refuse the rows whose events come after a version; the case keeps what the log has."""
        story = telling.story
        keep: list[Told] = []
        drop: list[Told] = []
        for told in story.told:
            (drop if told.last > version and told.last > told.before else keep).append(told)
        story.told[:] = keep
        telling.case.refusals += [Refusal(told.line, telling.case.name, reason) for told in drop]
        del story.events[version:]

    # The account

    def _account(self, telling: _Telling) -> None:
        summary, case, story, known = self.summary, telling.case, telling.story, telling.known
        for told in story.told:
            if told.last == told.before:
                summary.rows_unchanged += 1
            elif told.last <= known:
                summary.rows_already_imported += 1
            else:
                summary.rows_with_events += 1
        summary.rows_duplicate += case.duplicates
        for refusal in sorted(case.refusals):
            self._refuse(refusal)
        news = story.events[known:]
        if known:
            summary.tickets.known += 1
            summary.tickets_continued += bool(news)
        elif news:
            summary.tickets.new += 1
        summary.events.update(event.TOPIC for event in news)
        summary.source_statuses.update(e.source_status for e in news if isinstance(e, SourceStatusRecorded))
        self._account_for_people(telling)
        self._count_rows(case.rows)

    def _account_for_people(self, telling: _Telling) -> None:
        for person in telling.people:
            self.summary.events.update(event.TOPIC for event in person.who.pending_events)
        for (kind, _), person in telling.story.met.items():
            if not person.counted:
                person.counted = True
                met: Met = getattr(self.summary, _PLACES[kind])
                if person in telling.people:
                    met.new += 1
                else:
                    met.known += 1

    def _refuse(self, refusal: Refusal) -> None:
        self.summary.rows_refused += 1
        self.summary.refusals.append(refusal)
        if self.rejects is not None:
            self.rejects.writerow(refusal)

    def _count_rows(self, rows: int) -> None:
        self.summary.rows_read += rows
        if self.progress is not None:
            self.progress(self.summary.rows_read, self.layout.rows)


_PLACES: Final[dict[type, str]] = {Customer: "customers", Agent: "agents", Team: "teams"}
_ATTEMPTS: Final = 5
_ERASED: Final = "[erased]"

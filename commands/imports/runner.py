"""A foreign log's way into ours: cases are told while earlier ones are on their way to the disk."""

from __future__ import annotations

import asyncio
import csv
import gc
import time
from collections import Counter, deque
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from commands.imports.format import Clock, ImportRefused
from commands.imports.reading import Case, Refusal, cases, survey
from commands.imports.story import Source
from commands.imports.summary import Summary
from commands.imports.telling import tell
from domain.agent import Agent
from domain.customer import Customer
from domain.ticket_events import SourceStatusRecorded, TicketType
from storage.codec import UnreadableEvent, decode, encode
from storage.keyring import RootKeyError
from storage.log import Conflict, LogError, Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from commands.imports.format import Format
    from commands.imports.reading import Layout
    from commands.imports.story import Story
    from domain.event import Event
    from storage.database import Workspace
    from storage.log import Appended, StoredRow

CASES_AT_ONCE: Final = 96  # told in about 20 ms, so that the loop soon sends what waits
CASES_IN_FLIGHT: Final = 1_000  # two full batches of the log: enough to keep it busy, little enough to hold


async def run_import(  # noqa: PLR0913 - what an import can be told
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
    gc.set_threshold(50_000, *thresholds[1:])
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
    people: Sequence[Any] = ()
    """Who is created with it."""


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
        self.in_flight: deque[tuple[_Telling, asyncio.Task[Appended]]] = deque()
        self.there: set[UUID] = set()
        """People and teams that the log has, or that are on their way to it."""
        self.counted: set[UUID] = set()

    async def all(self) -> None:
        """Tell and append every case, one group being told while the one before is looked up and sent."""
        items = cases(self.layout)
        sending: asyncio.Task[None] | None = None
        try:
            while group := self._told(items):
                if sending is not None:
                    await sending
                sending = asyncio.create_task(self._send(group))
                await asyncio.sleep(0)  # lets the query go out before the next group takes the processor
            if sending is not None:
                await sending
            await self._settle(0)
        finally:
            if sending is not None:
                sending.cancel()
            for _, task in self.in_flight:
                task.cancel()
            await asyncio.gather(*(task for _, task in self.in_flight), return_exceptions=True)

    def _told(self, items: Iterator[Case[Any] | Refusal]) -> list[_Telling | Refusal]:
        return [
            item if isinstance(item, Refusal) else _Telling(item, tell(self.layout.format, self.source, item))
            for item in islice(items, CASES_AT_ONCE)
        ]

    async def _send(self, group: Sequence[_Telling | Refusal]) -> None:
        """Look up what the log has of a group, and hand it the rest in the order of the file."""
        tellings = [item for item in group if isinstance(item, _Telling)]
        for item in group:
            if isinstance(item, Refusal):
                self._refuse(item)
                self._count_rows(1)
        heads = await self.workspace.log.heads(
            [telling.story.ticket_id for telling in tellings]
            + list({thing.id for telling in tellings for thing in telling.story.met} - self.there)
        )
        self.there.update(heads)
        await self._recognise([telling for telling in tellings if telling.story.ticket_id in heads])
        submissions: list[tuple[_Telling, list[Event]]] = []
        subjects: set[UUID] = set()
        for telling in tellings:
            events = self._news(telling)
            submissions.append((telling, events))
            for event in events:
                subjects.update(event.subject_of(field) for field in event.PERSONAL if getattr(event, field) is not None)
        await self.workspace.keyring.ensure(subjects)
        for telling, events in submissions:
            self._submit(telling, events)
        await self._settle(CASES_IN_FLIGHT)

    def _news(self, telling: _Telling) -> list[Event]:
        """Give what the log does not have: first the people, then the ticket's events."""
        story = telling.story
        news = story.events[telling.known :]
        telling.people = []
        if news:
            telling.people = [thing for thing in story.met if thing.id not in self.there]
            self.there.update(thing.id for thing in telling.people)
        return [event for thing in telling.people for event in thing.pending_events] + news

    def _submit(self, telling: _Telling, events: list[Event]) -> None:
        if not events:
            self._account(telling)
            return
        keyring = self.workspace.keyring
        try:
            rows = [encode(event, keyring) for event in events]
        except RootKeyError as error:
            self._refuse_from(telling, telling.known, f"cannot be recorded: {error}")
            return
        submission = Submission(rows, {event.originator_id: event.originator_version - 1 for event in reversed(events)})
        task = asyncio.create_task(self.workspace.log.append(submission))
        self.in_flight.append((telling, task))

    async def _settle(self, most: int) -> None:
        """Wait until at most so many cases are in flight, and account for those that have arrived."""
        while self.in_flight and (len(self.in_flight) > most or self.in_flight[0][1].done()):
            telling, task = self.in_flight[0]
            try:
                appended = await task
            except Conflict:
                self.in_flight.popleft()
                await self._again(telling)
                continue
            self.in_flight.popleft()
            self.summary.last_position = appended.position
            self._account(telling)

    async def _again(self, telling: _Telling) -> None:
        """Send a case once more that somebody else has written to meanwhile, such as another import of the file."""
        for _ in range(_ATTEMPTS):
            people = [thing.id for thing in telling.story.met]
            self.there.difference_update(people)
            telling.known = 0
            heads = await self.workspace.log.heads([telling.story.ticket_id, *people])
            self.there.update(heads)
            if telling.story.ticket_id in heads:
                await self._recognise([telling])
            events = self._news(telling)
            if not events:
                break
            guards = {event.originator_id: event.originator_version - 1 for event in reversed(events)}
            rows = [encode(event, self.workspace.keyring) for event in events]
            try:
                appended = await self.workspace.log.append(Submission(rows, guards))
            except Conflict:
                continue
            self.summary.last_position = appended.position
            break
        else:
            message = f"others keep writing to {telling.story.foreign_id}; run the import again"
            raise LogError(message)
        self._account(telling)

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
        keep, drop = [], []
        for told in story.told:
            (drop if told.last > version and told.last > told.before else keep).append(told)
        story.told[:] = keep
        telling.case.refusals += [Refusal(told.line, telling.case.name, reason) for told in drop]
        del story.events[version:]

    # The account

    def _account(self, telling: _Telling) -> None:
        summary, case, story = self.summary, telling.case, telling.story
        known = telling.known
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
        created = {thing.id for thing in telling.people}
        for thing in story.met:
            if thing.id in self.counted:
                continue
            self.counted.add(thing.id)
            met = self._kind(thing)
            if thing.id in created:
                met.new += 1
            else:
                met.known += 1
        for thing in telling.people:
            summary.events.update(event.TOPIC for event in thing.pending_events)
        self._count_rows(case.rows)

    def _kind(self, thing: Any) -> Any:
        match thing:
            case Customer():
                return self.summary.customers
            case Agent():
                return self.summary.agents
            case _:
                return self.summary.teams

    def _refuse(self, refusal: Refusal) -> None:
        self.summary.rows_refused += 1
        self.summary.refusals.append(refusal)
        if self.rejects is not None:
            self.rejects.writerow(refusal)

    def _count_rows(self, rows: int) -> None:
        self.summary.rows_read += rows
        if self.progress is not None:
            self.progress(self.summary.rows_read, self.layout.rows)


_ATTEMPTS: Final = 5
_ERASED: Final = "[erased]"

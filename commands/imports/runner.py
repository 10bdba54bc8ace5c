"""A foreign log's way into ours: cases are told while earlier ones are on their way to the disk."""

from __future__ import annotations

import asyncio
import csv
import gc
import time
from collections import deque
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from commands.desk import Desk
from commands.imports.parcel import NOTHING, Fact, Parcel, Standing, subjects
from commands.imports.promises import PROMISES, with_announcements, with_terms
from commands.imports.reading import Refusal
from commands.imports.scribe import Order, telling
from commands.imports.summary import Summary
from domain.customer_events import Registered, TierChanged
from domain.service_levels import SERVICE_LEVELS_ID
from domain.ticket_events import Opened, TicketType
from domain.ticket_sla_events import SlaTermsChanged
from storage.append import Conflict, EventTooLarge, LogError, Submission, check_sizes
from storage.codec import UnreadableEvent, decode, encode
from storage.keyring import ERASED, RootKeyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from uuid import UUID

    from commands.imports.format import Format
    from commands.imports.parcel import Newcomer, Told
    from commands.imports.summary import Met
    from domain.customer_events import Tier
    from domain.event import Event
    from domain.service_levels import Book
    from domain.sla_terms import SlaTerms
    from storage.append import Appended, NewEvent
    from storage.codec import StorableEvent
    from storage.database import Workspace
    from storage.log_reader import StoredRow

CASES_IN_FLIGHT: Final = 1_000  # two full batches of the log: enough to keep it busy, little enough to hold
GROUPS_AHEAD: Final = 4  # told while the database makes the keys of the people in a group
_SAYING_TERMS: Final = frozenset({Opened.TOPIC, SlaTermsChanged.TOPIC})
ATTEMPTS: Final = 5  # of one case against others that write to it


async def run_import(
    workspace: Workspace,
    format_: Format[Any],
    path: Path,
    *,
    zone: str | None = None,
    ticket_type: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    rejects_path: Path | None = None,
    announce: bool = False,
) -> Summary:
    """Import a foreign log and give the account of its rows.

    One case is one submission: all of its events and those of the people first met in it, or none. Cases go to
    the log in the order of the file, so that an import that was killed ends, run again, with the same log. What
    is there already is found by its foreign id; a case that has grown gets the rest, provided that what is there
    is what its earlier rows tell.

    Tickets go by the policies that there are when they are recorded, as if commands had told their story. What came of
    promises is put on record only of what happens after somebody here deals with a ticket, or with `announce`, for
    tickets that are new, of all.

    `zone` is for times that name none, `ticket_type` for the tickets, both instead of the format's; `progress`
    is called with rows done and rows in all; refused rows go to `rejects_path` as well, as CSV. Raises
    ImportRefused where the file is no such log, and LogError where the log fails; then the same import may be
    run again.
    """
    started = time.perf_counter()
    order = Order(format_, path, zone or format_.zone, TicketType(ticket_type or format_.ticket_type))
    order.source()
    async with telling(order) as told:
        summary = Summary(format_.name, str(path), order.zone, blank_lines=told.blank_lines)
        with ExitStack() as stack:
            stack.enter_context(_rarer_collection())
            run = _Run(workspace, summary, lambda rows: None if progress is None else progress(rows, told.rows))
            run.announce = announce
            if rejects_path is not None:
                summary.rejects_file = str(rejects_path)
                run.rejects = csv.writer(stack.enter_context(rejects_path.open("w", encoding="utf-8", newline="")))
                run.rejects.writerow(Refusal._fields)
            await run.all(told.groups)
    summary.seconds = time.perf_counter() - started
    return summary


@contextmanager
def _rarer_collection() -> Iterator[None]:
    """Let the collector of cyclic garbage look less often: events are none, and it took a quarter of the time."""
    thresholds = gc.get_threshold()
    gc.set_threshold(200_000, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


class _Run:
    """One import under way."""

    def __init__(self, workspace: Workspace, summary: Summary, progress: Callable[[int], None]) -> None:
        self.workspace = workspace
        self.summary = summary
        self.progress = progress
        self.rejects: Any = None
        self.announce = False
        self.desk = Desk(workspace)
        self.in_flight: deque[tuple[Parcel, asyncio.Future[Appended]]] = deque()

    async def all(self, groups: AsyncIterator[list[Parcel | Refusal]]) -> None:
        """Look up, seal and append every case in the order told, while later ones are being told."""
        # Whoever appends first enters the log, which may begin an epoch; what is decided before that would be refused.
        await self.workspace.log.append(Submission(probe=True))
        waiting: asyncio.Queue[list[Parcel | Refusal] | None] = asyncio.Queue(GROUPS_AHEAD)

        async def receive() -> None:
            async for group in groups:
                await waiting.put(group)
            await waiting.put(None)

        async def send() -> None:
            while (group := await waiting.get()) is not None:
                await self._send(group)
            await self._settle(0)

        tasks = [asyncio.create_task(receive(), name="import reads"), asyncio.create_task(send(), name="import writes")]
        try:
            await asyncio.gather(*tasks)
        except Exception:
            # What was handed over is in the log or not before anybody hears of the failure.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(future for _, future in self.in_flight), return_exceptions=True)
            raise
        finally:
            for task in tasks:
                task.cancel()
            for _, future in self.in_flight:
                future.cancel()
            await asyncio.gather(*tasks, *(future for _, future in self.in_flight), return_exceptions=True)

    async def _send(self, group: Sequence[Parcel | Refusal]) -> None:
        """Look up what the log has of a group, and hand it the rest in the order of the file."""
        parcels: list[Parcel] = []
        for item in group:
            if isinstance(item, Refusal):
                self._refuse(item)
                self._count_rows(1)
            else:
                parcels.append(item)
        await self._look_up(parcels)
        book = await self.desk.book()
        news = [self._news(parcel, book) for parcel in parcels]
        await self.workspace.keyring.ensure({subject for facts in news for subject in subjects(facts)})
        for parcel, facts in zip(parcels, news, strict=True):
            if not facts:
                self._account(parcel)
            elif (submission := self._submission(parcel, facts, book)) is not None:
                self.in_flight.append((parcel, self.workspace.log.submit(submission)))
        await self._settle(CASES_IN_FLIGHT)

    async def _look_up(self, parcels: Sequence[Parcel]) -> None:
        """Find which of the tickets and people the log has, and how much of each ticket."""
        strangers = {p.fact.originator_id: p for parcel in parcels for p in parcel.met if p.there is None}
        heads = await self.workspace.log.heads([*(parcel.ticket_id for parcel in parcels), *strangers])
        for id_, person in strangers.items():
            person.there = id_ in heads
        await self._rank({id_: person for id_, person in strangers.items() if person.there})
        await self._recognise([parcel for parcel in parcels if parcel.ticket_id in heads])

    async def _rank(self, known: Mapping[UUID, Newcomer]) -> None:
        """Find the tiers of customers whom the log has."""
        customers = [id_ for id_, person in known.items() if person.kind == "customers"]
        if customers:
            for row in await self.workspace.log.last_of(customers, (Registered.TOPIC, TierChanged.TOPIC)):
                known[row.stream].tier = decode(row).event.tier

    def _news(self, parcel: Parcel, book: Book) -> list[Fact]:
        """Give what the log lacks of a case, and remember it with the parcel."""
        tiers = {person.fact.originator_id: person.tier for person in parcel.met}
        row_ends = {told.last for told in parcel.told}
        parcel.recorded = with_terms(parcel.events, row_ends, tiers, book, parcel.standing)
        if self.announce and parcel.recorded and not parcel.standing.known:
            parcel.recorded = with_announcements(parcel.recorded)
        return parcel.news()

    def _submission(self, parcel: Parcel, facts: Sequence[Fact], book: Book) -> Submission | None:
        try:
            rows = [self._row(fact) for fact in facts]
            check_sizes(rows, self.workspace.database.largest_event)
        except (RootKeyError, EventTooLarge) as error:
            for person in parcel.people:
                person.there = None
            parcel.people = ()
            parcel.recorded = ()
            self._refuse_from(parcel, parcel.standing.known, f"cannot be recorded: {error}")
            self._account(parcel)
            return None
        guards = {person.fact.originator_id: 0 for person in parcel.people}
        guards[parcel.ticket_id] = parcel.standing.version
        guards[SERVICE_LEVELS_ID] = book.version
        return Submission(rows, guards, epoch=self.workspace.log.epochs.known)

    def _row(self, fact: Fact) -> NewEvent:
        return encode(cast("StorableEvent", fact), self.workspace.keyring)  # only reading back is left out

    async def _settle(self, most: int) -> None:
        """Wait until at most so many cases are in flight, and account for those that have arrived."""
        while self.in_flight and (len(self.in_flight) > most or self.in_flight[0][1].done()):
            parcel, future = self.in_flight[0]
            if not future.done():
                await asyncio.wait([future])  # which, unlike awaiting it, leaves it be when this is cancelled
            try:
                appended = future.result()
            except Conflict:
                if not await self._again(parcel):
                    self.in_flight.popleft()
                    continue
            else:
                self.summary.last_position = appended.position
            self.in_flight.popleft()
            self._account(parcel)

    async def _again(self, parcel: Parcel) -> bool:
        """Send a case once more that somebody else has written to meanwhile, such as another import of the file.

        Gives False where the case has been accounted for already.
        """
        for _ in range(ATTEMPTS):
            for person in parcel.met:
                person.there = None
            parcel.standing = NOTHING
            await self._look_up([parcel])
            book = await self.desk.book(fresh=True)
            facts = self._news(parcel, book)
            if not facts:
                return True
            await self.workspace.keyring.ensure(set(subjects(facts)))
            submission = self._submission(parcel, facts, book)
            if submission is None:
                return False
            try:
                self.summary.last_position = (await self.workspace.log.append(submission)).position
            except Conflict:
                continue
            return True
        message = f"others keep writing to {parcel.foreign_id}; run the import again"
        raise LogError(message)

    # What is there already

    async def _recognise(self, parcels: Sequence[Parcel]) -> None:
        """Find how much of each known ticket the log has; what contradicts it is refused."""
        log = self.workspace.log
        stored = await asyncio.gather(*(log.stream(parcel.ticket_id) for parcel in parcels))
        await self.workspace.keyring.load(row for rows in stored for row in rows)
        for parcel, rows in zip(parcels, stored, strict=True):
            told = [row for row in rows if not row.topic.startswith(PROMISES)]
            same = 0
            for row, fact in zip(told, parcel.events, strict=False):
                if not self._is(row, fact):
                    break
                same += 1
            parcel.standing = Standing(same, rows[-1].version, *self._terms(rows))
            if same < len(told) and same < len(parcel.events):
                self._refuse_from(parcel, same, f"the ticket's own history differs from version {same + 1} on")

    def _terms(self, rows: Sequence[StoredRow]) -> tuple[SlaTerms | None, Tier | None]:
        """Give the terms and the tier that a ticket goes by."""
        last = next((row for row in reversed(rows) if row.topic in _SAYING_TERMS), None)
        if last is None:
            return None, None
        event = decode(last).event
        return event.terms, event.tier

    def _is(self, row: StoredRow, fact: Fact) -> bool:
        """Tell whether a stored event is the one told now; personal values that are gone count as equal."""
        if row.topic != fact.TOPIC:
            return False
        if row.personal is None and not fact.values and row.state == fact.state:
            return True
        try:
            there: Event = decode(row, self.workspace.keyring).event
        except UnreadableEvent:
            return False
        if isinstance(there, Opened):
            # Whatever it was promised then; the state of the fact is from before anything was.
            there = there.model_copy(update={"tier": None, "terms": None})
        if there.state_json() != fact.state:
            return False
        return all(value in (fact.values.get(name), ERASED) for name, value in there.personal_values().items())

    def _refuse_from(self, parcel: Parcel, version: int, reason: str) -> None:
        """Refuse the rows whose events come after a version; the case keeps what the log has."""
        keep: list[Told] = []
        for told in parcel.told:
            if told.last > version and told.last > told.before:
                parcel.refusals.append(Refusal(told.line, parcel.name, reason))
            else:
                keep.append(told)
        parcel.told = keep
        del parcel.events[version:]

    # The account

    def _account(self, parcel: Parcel) -> None:
        summary, known = self.summary, parcel.standing.known
        for _, before, last in parcel.told:
            if last == before:
                summary.rows_unchanged += 1
            elif last <= known:
                summary.rows_already_imported += 1
            else:
                summary.rows_with_events += 1
        summary.rows_duplicate += parcel.duplicates
        for refusal in sorted(parcel.refusals):
            self._refuse(refusal)
        news = parcel.events[known:]
        if known:
            summary.tickets.known += 1
            summary.tickets_continued += bool(news)
        elif news:
            summary.tickets.new += 1
        summary.events.update([fact.TOPIC for fact in parcel.recorded])
        summary.source_statuses.update(
            [words for version, words in parcel.words if known < version <= known + len(news)]
        )
        self._account_for_people(parcel)
        self._count_rows(parcel.rows)

    def _account_for_people(self, parcel: Parcel) -> None:
        self.summary.events.update([person.fact.TOPIC for person in parcel.people])
        for person in parcel.met:
            if not person.counted:
                person.counted = True
                met: Met = getattr(self.summary, person.kind)
                if person in parcel.people:
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
        self.progress(self.summary.rows_read)

"""Whatever is done to the log, by whomever and over whatever connections, it is what lists and dicts say it should be."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple
from uuid import UUID

import psycopg
import pytest
import uvloop
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from psycopg.sql import SQL, Identifier

from storage import log as log_module
from storage.append import Appended, Claim, Claimed, Conflict, KeyReused, LogError, NewEvent, Submission
from storage.database import Database, Workspace
from storage.migrations import create_workspace
from tests.storage.wire import Cut, Wire, unencrypted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from storage.log_reader import StoredRow
    from storage.settings import Settings

STREAMS: Final = [UUID(int=0xA0 + n) for n in range(4)]
KEYS: Final = [f"key {n}".encode() for n in range(3)]
VALUES: Final = [("email", b"x"), ("email", b"y"), ("phone", b"x")]
DEADLINE: Final = 60  # seconds within which anything that is waited for happens

Answer = tuple[Any, ...]
"""What a submission comes to, without times: a word, and what belongs to it."""


# The model


@dataclass
class Model:
    """The log, the outcomes and the claims as plain lists and dicts; it carries out one submission after another."""

    events: list[NewEvent] = field(default_factory=list)
    heads: dict[UUID, int] = field(default_factory=dict)
    outcomes: dict[bytes, tuple[bytes | None, int, int, bytes | None]] = field(default_factory=dict)
    owners: dict[tuple[str, bytes], UUID] = field(default_factory=dict)

    def copy(self) -> Model:
        return Model(self.events[:], self.heads.copy(), self.outcomes.copy(), self.owners.copy())

    def carry_out(self, said: Submission) -> Answer:
        if said.key is not None and said.key in self.outcomes:
            body, first, last, result = self.outcomes[said.key]
            return ("replayed", first, last, result) if body == said.body_hash else ("key_reused",)
        return self.decide(said)

    def decide(self, said: Submission) -> Answer:
        """Carry out a submission whose key, if it has one, is new."""
        for stream, version in said.guards.items():
            if self.head(stream) != version:
                return ("conflict", stream, self.head(stream))
        owners = self.owners.copy()
        for claim in said.claims:
            value = (claim.kind, claim.key)
            holder = owners.get(value)
            if claim.release:
                if holder == claim.stream:
                    del owners[value]
            elif holder in {None, claim.stream}:
                owners[value] = claim.stream
            else:
                return ("claimed", claim.kind, holder)
        heads = self.heads.copy()
        for event in said.events:
            follows = {heads[event.stream] + 1} if event.stream in heads else {0, 1}
            if event.version not in follows:
                return ("conflict", event.stream, self.head(event.stream))
            heads[event.stream] = event.version
        first = len(self.events) + (1 if said.events else 0)
        self.events += said.events
        self.heads, self.owners = heads, owners
        last = len(self.events)
        if said.key is not None and not said.probe:
            self.outcomes[said.key] = (said.body_hash, first, last, said.result)
        return ("done", first, last, said.result)

    def head(self, stream: UUID) -> int:
        return self.heads.get(stream, 0)


class Asked(NamedTuple):
    """A submission and what was answered to it."""

    said: Submission
    answer: Answer


class Explanation:
    """Looks for an order of the submissions, each queue's being kept, in which the model gives every observed answer.

    `lossy` allows for what is right of a batch that was sent twice because its reply was lost: a command with a key
    may be told that it is replayed although it was never told before.
    """

    def __init__(self, start: Model, *, fits: Callable[[Model], bool], lossy: bool) -> None:
        self.start = start
        self.fits = fits
        self.lossy = lossy

    def of(self, queues: Sequence[Sequence[Asked]], before: Model | None = None) -> Model | None:
        """Give the model as it is after the first order that is found, or None: there is none."""
        before = before or self.start
        if not any(queues):
            return before if self.fits(before) else None
        # What was done first was appended first, so that the first guess is mostly right.
        order = sorted((number for number, queue in enumerate(queues) if queue), key=lambda n: _position(queues[n][0]))
        for number in order:
            first, *rest = queues[number]
            remaining = [rest if n == number else queue for n, queue in enumerate(queues)]
            for after in self.steps(before, first):
                found = self.of(remaining, after)
                if found is not None:
                    return found
        return None

    def steps(self, before: Model, asked: Asked) -> Iterator[Model]:
        """Carry one submission out in each way that gives its answer."""
        said, answer = asked
        after = before.copy()
        expected = after.carry_out(said)
        if expected == answer:
            yield after
        elif said.key is None:
            return
        elif self.lossy and expected[0] == "done" and ("replayed", *expected[1:]) == answer:
            yield after
        elif said.key not in self.start.outcomes:
            # Commands of one batch with one key: the later ones do not know of the first yet. They may be refused,
            # and probes confirmed; both leave nothing under the key.
            after = before.copy()
            after.outcomes.pop(said.key, None)
            if after.decide(said) == answer and (said.probe or answer[0] != "done"):
                after.outcomes = before.outcomes
                yield after


def _position(asked: Asked) -> int:
    return asked.answer[1] if asked.answer[0] in {"done", "replayed"} else 0


def answer_of(outcome: Appended | LogError) -> Answer:
    match outcome:
        case Appended(first, last, _, replayed, result):
            return ("replayed" if replayed else "done", first, last, result)
        case Conflict():
            return ("conflict", outcome.stream, outcome.actual)
        case Claimed():
            return ("claimed", outcome.kind, outcome.owner)
        case KeyReused():
            return ("key_reused",)
        case _:
            raise outcome


# What is drawn: small numbers, given a meaning by how things stand, so that an example means the same whoever won a race


class Wish(NamedTuple):
    """A submission in small numbers; versions are counted from where the streams are thought to stand."""

    events: list[tuple[int, int]]
    guards: dict[int, int]
    claims: list[tuple[int, int, bool]]
    key: int | None
    body: int
    probe: bool


_stream = st.integers(0, len(STREAMS) - 1)
_off = st.sampled_from([0] * 9 + [-1, 1])  # mostly right
_key = st.sampled_from([None] * 5 + list(range(len(KEYS))))

wishes = st.builds(
    Wish,
    st.lists(st.tuples(_stream, _off), max_size=3),
    st.dictionaries(_stream, _off, max_size=2),
    st.lists(st.tuples(st.integers(0, len(VALUES) - 1), _stream, st.booleans()), max_size=2),
    _key,
    st.sampled_from([0] * 5 + [1]),
    st.booleans(),
)
batches = st.lists(wishes, min_size=1, max_size=3)
page_sizes = st.integers(1, 7) | st.just(1000)


# The ground


class Reader:
    """Reads on from where it stands, by pages, and keeps what it has seen."""

    def __init__(self) -> None:
        self.seen: list[StoredRow] = []

    async def poll(self, workspace: Workspace, size: int) -> int:
        page = await workspace.log.page(len(self.seen), size)
        at = range(len(self.seen) + 1, len(self.seen) + 1 + len(page))
        assert [row.position for row in page] == list(at), "a page begins after the last one, and has no gap"
        self.seen += page
        return len(page)


class Ground:
    """Four processes, as far as the database can tell: three writers, the last of them over a wire, and a reader."""

    def __init__(self, settings: Settings, runner: asyncio.Runner) -> None:
        self.settings = settings
        self.runner = runner
        self.names = (f"example_{n}" for n in count())

    async def open(self, stack: AsyncExitStack) -> None:
        url = self.settings.database_url
        assert url is not None
        self.wire = await stack.enter_async_context(await Wire.to(url, only="desk append"))
        owner = await psycopg.AsyncConnection.connect(url, autocommit=True)
        self.owner = await stack.enter_async_context(owner)
        by_wire = type(self.settings)(
            data_dir=self.settings.data_dir,
            key_file=self.settings.key_file,
            database_url=self.wire.conninfo(url),
            pool_size=2,
        )
        try:
            await (await psycopg.AsyncConnection.connect(by_wire.database_url or "")).close()
        except psycopg.OperationalError as error:
            pytest.skip(unencrypted(error))
        places = [self.settings, self.settings, by_wire, self.settings]
        self.processes = [await stack.enter_async_context(await Database.open(place)) for place in places]

    async def new_workspace(self) -> list[Workspace]:
        name = next(self.names)
        await create_workspace(self.settings, name)
        return [await process.workspace(name) for process in self.processes]

    async def remove(self, workspaces: Sequence[Workspace]) -> None:
        for process, workspace in zip(self.processes, workspaces, strict=True):
            await workspace.log.close()
            del process._workspaces[workspace.name]
        await self.owner.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(workspaces[0].schema)))
        await self.owner.execute("DELETE FROM ledgerdesk.workspaces WHERE name = %s", (workspaces[0].name,))


class LogMachine(RuleBasedStateMachine):
    """Does everything that can be done to a log, and wants each answer explained by the model."""

    ground: ClassVar[Ground]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.numbers = count()
        self.sent: list[Submission] = []
        self.readers = [Reader(), Reader()]
        self.sound = True

    @initialize()
    def begin(self) -> None:
        self.workspaces = self.ground.runner.run(self.ground.new_workspace())
        *self.writers, self.reading = self.workspaces

    def teardown(self) -> None:
        try:
            if self.sound:
                self.ground.runner.run(self.everything_is_as_the_model_says())
        finally:
            self.ground.runner.run(self.ground.remove(self.workspaces))

    # What is done

    @rule(writer=st.integers(0, 2), batch=batches)
    def one_process_sends_a_batch(self, writer: int, batch: list[Wish]) -> None:
        self.carry_out({writer: batch})

    @rule(first=batches, second=batches, third=batches, size=page_sizes)
    def processes_append_together_and_a_reader_polls(
        self, first: list[Wish], second: list[Wish], third: list[Wish], size: int
    ) -> None:
        self.carry_out({0: first, 1: second, 2: third}, polling=size)

    @rule(alone=wishes, batch=batches)
    def one_decides_while_it_holds_the_log_and_another_appends(self, alone: Wish, batch: list[Wish]) -> None:
        self.carry_out({0: batch}, exclusive=alone)

    @rule(which=st.integers(0, 20), writer=st.integers(0, 2), other_body=st.booleans())
    def a_command_is_sent_again(self, which: int, writer: int, other_body: bool) -> None:  # noqa: FBT001 - drawn
        if self.sent:
            said = self.sent[which % len(self.sent)]
            if other_body:
                said = Submission(said.events, said.guards, said.claims, said.key, b"another", said.result, said.probe)
            self.run([[(writer, said)]])

    @rule(batch=batches, cuts=st.lists(st.sampled_from(Cut), min_size=1, max_size=2), other=st.none() | batches)
    def the_connection_breaks(self, batch: list[Wish], cuts: list[Cut], other: list[Wish] | None) -> None:
        self.ground.wire.break_next(*cuts)
        self.carry_out({2: batch} if other is None else {2: batch, 0: other}, lossy=True)
        self.ground.wire.break_next()

    @rule(first=batches, second=batches)
    def the_server_ends_connections(self, first: list[Wish], second: list[Wish]) -> None:
        self.carry_out({0: first, 1: second}, lossy=True, terminate=True)

    @rule(reader=st.integers(0, 1), size=page_sizes)
    def a_reader_takes_a_page(self, reader: int, size: int) -> None:
        self.ground.runner.run(self.readers[reader].poll(self.reading, size))

    @rule(stream=_stream, after=st.integers(0, 5), length=st.integers(0, 5))
    def a_stream_is_read(self, stream: int, after: int, length: int) -> None:
        rows = self.ground.runner.run(
            self.reading.log.stream(STREAMS[stream], after=after, upto=after + length if length else None)
        )
        least = after if after > 0 else -1
        most = after + length if length else 10**9
        expected = [e for e in self.model.events if e.stream == STREAMS[stream] and least < e.version <= most]
        assert [NewEvent(*row[1:6]) for row in rows] == expected

    # How it is done

    def carry_out(
        self,
        wishes_of: dict[int, list[Wish]],
        *,
        exclusive: Wish | None = None,
        polling: int | None = None,
        lossy: bool = False,
        terminate: bool = False,
    ) -> None:
        queues = [
            [(writer, said) for said in self.submissions(of_one)] for writer, of_one in wishes_of.items() if of_one
        ]
        alone = self.submissions([exclusive])[0] if exclusive is not None else None
        self.run(queues, alone=alone, polling=polling, lossy=lossy, terminate=terminate)

    def run(
        self,
        queues: list[list[tuple[int, Submission]]],
        *,
        alone: Submission | None = None,
        polling: int | None = None,
        lossy: bool = False,
        terminate: bool = False,
    ) -> None:
        async def together() -> tuple[list[list[Asked]], list[StoredRow], dict[tuple[str, bytes], UUID]]:
            async with asyncio.timeout(DEADLINE):
                asked = await self.asked(queues, alone=alone, polling=polling, terminate=terminate)
                rows = await self.reading.log.page(len(self.model.events), 1000)
                owners = {value: await self.reading.log.owner_of(*value) for value in VALUES}
            return asked, rows, {value: owner for value, owner in owners.items() if owner is not None}

        self.sound = False  # until the answers are explained; a second complaint would hide the first
        asked, rows, owners = self.ground.runner.run(together())
        new = [NewEvent(*row[1:6]) for row in rows]

        def fits(model: Model) -> bool:
            return model.events[len(self.model.events) :] == new and model.owners == owners

        if lossy:
            # What was sent twice was tried twice, so that its order among itself is not kept.
            asked = [[one] for queue in asked for one in queue]
        explained = Explanation(self.model, fits=fits, lossy=lossy).of(asked)
        assert explained is not None, f"no order explains {asked} after {self.model}, with {new} and {owners} found"
        self.model = explained
        self.sound = True

    async def asked(
        self,
        queues: list[list[tuple[int, Submission]]],
        *,
        alone: Submission | None,
        polling: int | None,
        terminate: bool,
    ) -> list[list[Asked]]:
        """Send everything at once, what goes to one log in order, and give what was answered."""
        done = asyncio.Event()
        reading = asyncio.create_task(self.polled(polling, done)) if polling is not None else None
        ending = asyncio.create_task(self.terminated()) if terminate else None
        sending = [
            [asyncio.ensure_future(_answer(self.writers[writer].log.append(said))) for writer, said in queue]
            for queue in queues
        ]
        if alone is not None:
            sending.append([asyncio.ensure_future(_answer(self.exclusively(alone)))])
        said = [[said for _, said in queue] for queue in queues] + ([[alone]] if alone is not None else [])
        answers = [list(await asyncio.gather(*queue)) for queue in sending]
        done.set()
        for task in (reading, ending):
            if task is not None:
                await task
        return [list(map(Asked, *pair)) for pair in zip(said, answers, strict=True)]

    async def exclusively(self, said: Submission) -> Appended:
        async with self.writers[1].log.exclusively() as append:
            return await append(said)

    async def polled(self, size: int, done: asyncio.Event) -> None:
        while True:
            finished = done.is_set()
            if not await self.readers[0].poll(self.reading, size) and finished:
                return

    async def terminated(self) -> None:
        await self.ground.owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'desk append ' || %s AND datname = current_database()",
            (self.reading.name,),
        )

    def submissions(self, several: Sequence[Wish]) -> list[Submission]:
        """Give wishes their meaning, on the supposition that each before is granted."""
        heads = self.model.heads.copy()
        made = []
        for wish in several:
            number = next(self.numbers)
            guards = {STREAMS[n]: heads.get(STREAMS[n], 0) + off for n, off in wish.guards.items()}
            events = []
            for n, off in wish.events:
                stream = STREAMS[n]
                version = max(heads.get(stream, 0) + 1 + off, 0)
                heads[stream] = version
                personal = b"secret" if number % 2 else None
                events.append(NewEvent(stream, version, f"thing.{n}", f"{number}".encode(), personal))
            keeps = wish.key is not None and not wish.probe
            said = Submission(
                events,
                guards,
                # Without events and key nothing would tell, were the reply lost, that a claim had been granted.
                [Claim(*VALUES[value], STREAMS[n], release) for value, n, release in wish.claims if events or keeps],
                KEYS[wish.key] if wish.key is not None else None,
                f"body {wish.body}".encode() if wish.key is not None else None,
                f"result {number}".encode(),
                wish.probe and not events,
            )
            if said.key is not None:
                self.sent.append(said)
            made.append(said)
        return made

    # What must be so

    async def everything_is_as_the_model_says(self) -> None:
        """Look into the tables, past the code that reads them."""
        place = Identifier(self.reading.schema)
        cursor = await self.ground.owner.execute(
            SQL(
                "SELECT notification_id, originator_id, originator_version, topic, state, personal, recorded_at"
                " FROM {}.events ORDER BY notification_id"
            ).format(place)
        )
        rows = await cursor.fetchall()
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        assert [NewEvent(*row[1:6]) for row in rows] == self.model.events
        assert [row[6] for row in rows] == sorted(row[6] for row in rows)
        cursor = await self.ground.owner.execute(
            SQL("SELECT command_key, body_hash, first_position, last_position, result FROM {}.command_outcomes").format(
                place
            )
        )
        assert {row[0]: row[1:] for row in await cursor.fetchall()} == self.model.outcomes
        cursor = await self.ground.owner.execute(SQL("SELECT kind, key, stream FROM {}.claims").format(place))
        assert {(row[0], row[1]): row[2] for row in await cursor.fetchall()} == self.model.owners
        assert await self.reading.log.heads(STREAMS) == self.model.heads
        for reader in self.readers:
            assert [tuple(row) for row in reader.seen] == rows[: len(reader.seen)]


async def _answer(outcome: Awaitable[Appended]) -> Answer:
    try:
        return answer_of(await outcome)
    except LogError as error:
        return answer_of(error)


def test_whatever_happens_the_log_is_what_lists_and_dicts_say(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same examples every time, unless pytest is told `--hypothesis-profile=soak`, which tries many others."""
    monkeypatch.setattr(log_module, "RECONNECT_PAUSE", 0.001)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ground = LogMachine.ground = Ground(settings, runner)
        stack = AsyncExitStack()
        try:
            runner.run(ground.open(stack))
            run_state_machine_as_test(LogMachine, settings=DEPTH)
            assert ground.wire.broken
        finally:
            runner.run(stack.aclose())


DEPTH: Final = (
    hypothesis_settings()
    if hypothesis_settings.get_current_profile_name() == "soak"
    else hypothesis_settings(
        max_examples=30,
        stateful_step_count=20,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
)

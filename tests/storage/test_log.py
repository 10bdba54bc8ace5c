"""The log: dense, in commit order, all or nothing per command, safe to retry, apart from other workspaces."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from storage import log as log_module
from storage.append import (
    Appended,
    Claim,
    Claimed,
    Conflict,
    KeyReused,
    LogBusy,
    LogError,
    LogUnavailable,
    NewEvent,
    Submission,
)
from storage.database import CHANNEL, ROLE_NAMES, Database, DatabaseUnreachable
from storage.settings import external_conninfo
from tests.storage.wire import Cut, Wire, unencrypted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from storage.database import Workspace
    from storage.log import Log
    from storage.settings import Settings


def event(stream: UUID, version: int, state: bytes = b"{}") -> NewEvent:
    return NewEvent(stream, version, "thing.happened", state, None)


async def outcome(log: Log, submission: Submission) -> Appended | Exception:
    try:
        return await log.append(submission)
    except LogError as error:
        return error


async def positions(log: Log) -> list[int]:
    return [row.position for row in await log.page(0, 100_000)]


async def test_positions_are_dense_from_one_and_follow_the_order_of_commits(alpha: Workspace) -> None:
    streams = [uuid4() for _ in range(20)]
    for stream in streams:
        await alpha.log.append(Submission([event(stream, 1), event(stream, 2)]))
    rows = await alpha.log.page(0, 1000)
    assert [row.position for row in rows] == list(range(1, 41))
    assert [row.stream for row in rows] == [stream for stream in streams for _ in range(2)]
    assert [row.recorded_at for row in rows] == sorted(row.recorded_at for row in rows)


async def chain(log: Log, first: Submission, second: Submission) -> list[Appended | Exception]:
    """Submit a command, and one that was decided on what it leaves behind."""
    second.after = first
    return list(await asyncio.gather(outcome(log, first), outcome(log, second)))


@pytest.mark.parametrize("commands_in_a_batch", [500, 1])
async def test_a_command_decided_on_another_is_recorded_behind_it(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch, commands_in_a_batch: int
) -> None:
    monkeypatch.setattr(log_module, "BATCH_COMMANDS", commands_in_a_batch)
    stream = uuid4()
    first, second = Submission([event(stream, 1)], {stream: 0}), Submission([event(stream, 2)], {stream: 1})
    done = await chain(alpha.log, first, second)
    assert [each.position for each in done if isinstance(each, Appended)] == [1, 2]
    assert (first.recorded, second.recorded, second.after) == (True, True, None)


@pytest.mark.parametrize("commands_in_a_batch", [500, 1])
async def test_a_command_decided_on_one_that_came_to_nothing_conflicts_though_the_version_is_right(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch, commands_in_a_batch: int
) -> None:
    monkeypatch.setattr(log_module, "BATCH_COMMANDS", commands_in_a_batch)
    stream = uuid4()
    await alpha.log.append(Submission([event(stream, 1), event(stream, 2, b'{"of":"somebody else"}')]))
    first, second = Submission([event(stream, 2)], {stream: 1}), Submission([event(stream, 3)], {stream: 2})
    assert [type(each) for each in await chain(alpha.log, first, second)] == [Conflict, Conflict]
    assert await positions(alpha.log) == [1, 2]
    assert (first.recorded, second.recorded) == (False, False)


@pytest.mark.parametrize("commands_in_a_batch", [500, 1])
async def test_a_command_decided_on_one_that_had_been_done_before_conflicts(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch, commands_in_a_batch: int
) -> None:
    monkeypatch.setattr(log_module, "BATCH_COMMANDS", commands_in_a_batch)
    stream, other = uuid4(), uuid4()
    await alpha.log.append(Submission([event(other, 1)], key=b"k", body_hash=b"b"))
    await alpha.log.append(Submission([event(stream, 1)]))
    first = Submission([event(stream, 1)], {stream: 0}, key=b"k", body_hash=b"b")
    replayed, conflict = await chain(alpha.log, first, Submission([event(stream, 2)], {stream: 1}))
    assert isinstance(replayed, Appended)
    assert replayed.replayed
    assert isinstance(conflict, Conflict)


async def test_a_command_decided_on_one_whose_caller_went_away_conflicts(alpha: Workspace) -> None:
    stream = uuid4()
    first, second = Submission([event(stream, 1)], {stream: 0}), Submission([event(stream, 2)], {stream: 1})
    second.after = first
    gone = alpha.log.submit(first)
    waiting = alpha.log.submit(second)
    gone.cancel()
    with pytest.raises(Conflict):
        await waiting
    assert await positions(alpha.log) == []


async def test_an_empty_log_has_its_head_at_zero(alpha: Workspace) -> None:
    head = await alpha.log.head()
    assert (head.position, head.recorded_at) == (0, None)
    assert len(head.epoch) == 8
    assert head.epoch == await alpha.log.epoch()


async def test_a_refused_command_does_not_fail_its_neighbours(alpha: Workspace) -> None:
    known, fresh, other = uuid4(), uuid4(), uuid4()
    await alpha.log.append(Submission([event(known, 1)]))
    results = await asyncio.gather(
        outcome(alpha.log, Submission([event(fresh, 1)])),
        outcome(alpha.log, Submission([event(known, 1)])),
        outcome(alpha.log, Submission([event(known, 5)])),
        outcome(alpha.log, Submission([event(known, 2)], guards={known: 3})),
        outcome(alpha.log, Submission([event(other, 1), event(known, 2)])),
    )
    assert [type(result) for result in results] == [Appended, Conflict, Conflict, Conflict, Appended]
    assert await positions(alpha.log) == [1, 2, 3, 4]


async def test_a_command_over_several_streams_is_all_or_nothing(alpha: Workspace) -> None:
    first, second = uuid4(), uuid4()
    with pytest.raises(Conflict):
        await alpha.log.append(Submission([event(first, 1), event(first, 2), event(second, 7)]))
    assert await positions(alpha.log) == []
    done = await alpha.log.append(Submission([event(first, 1), event(second, 1), event(first, 2)]))
    assert (done.first_position, done.position) == (1, 3)
    assert [row.version for row in await alpha.log.stream(first)] == [1, 2]


async def test_two_commands_on_one_stream_in_one_batch_are_decided_in_order(alpha: Workspace) -> None:
    stream = uuid4()
    results = await asyncio.gather(
        *(
            outcome(alpha.log, Submission([event(stream, version)], guards={stream: version - 1}))
            for version in (1, 2, 3)
        ),
        outcome(alpha.log, Submission([event(stream, 3)], guards={stream: 2})),
    )
    assert [type(result) for result in results] == [Appended, Appended, Appended, Conflict]
    assert [row.version for row in await alpha.log.stream(stream)] == [1, 2, 3]


async def test_a_conflict_names_the_stream_and_its_version(alpha: Workspace) -> None:
    stream = uuid4()
    await alpha.log.append(Submission([event(stream, 1), event(stream, 2)]))
    with pytest.raises(Conflict) as caught:
        await alpha.log.append(Submission(guards={uuid4(): 0, stream: 1}))
    assert (caught.value.stream, caught.value.actual) == (stream, 2)


async def test_a_submission_without_events_confirms_its_guards_at_the_head(alpha: Workspace) -> None:
    stream = uuid4()
    await alpha.log.append(Submission([event(stream, 1)]))
    confirmed = await alpha.log.append(Submission(guards={stream: 1}))
    assert (confirmed.first_position, confirmed.position, confirmed.replayed) == (1, 1, False)
    assert await positions(alpha.log) == [1]


async def test_the_same_key_and_body_give_the_first_outcome_again(alpha: Workspace) -> None:
    stream, other = uuid4(), uuid4()
    first = await alpha.log.append(Submission([event(stream, 1)], key=b"k", body_hash=b"b", result=b"first"))
    await alpha.log.append(Submission([event(other, 1)]))
    again = await alpha.log.append(Submission([event(stream, 2)], key=b"k", body_hash=b"b", result=b"second"))
    assert again.replayed
    assert (again.position, again.result) == (first.position, b"first")
    assert await positions(alpha.log) == [1, 2]


async def test_the_outcome_of_a_command_that_changed_nothing_is_kept_too(alpha: Workspace) -> None:
    stream = uuid4()
    await alpha.log.append(Submission([event(stream, 1)]))
    await alpha.log.append(Submission(guards={stream: 1}, key=b"k", body_hash=b"b", result=b"nothing"))
    again = await alpha.log.append(Submission([event(stream, 2)], key=b"k", body_hash=b"b"))
    assert (again.replayed, again.result, again.position) == (True, b"nothing", 1)


async def test_a_key_with_another_body_is_refused(alpha: Workspace) -> None:
    await alpha.log.append(Submission([event(uuid4(), 1)], key=b"k", body_hash=b"b"))
    with pytest.raises(KeyReused):
        await alpha.log.append(Submission([event(uuid4(), 1)], key=b"k", body_hash=b"other"))
    assert await positions(alpha.log) == [1]


async def test_a_refused_command_leaves_no_outcome_under_its_key(alpha: Workspace) -> None:
    stream = uuid4()
    await alpha.log.append(Submission(guards={stream: 0}, key=b"k", body_hash=b"b", probe=True))
    with pytest.raises(Conflict):
        await alpha.log.append(Submission([event(stream, 9)], key=b"k", body_hash=b"b"))
    done = await alpha.log.append(Submission([event(stream, 1)], key=b"k", body_hash=b"b"))
    assert (done.replayed, done.position) == (False, 1)


async def test_keys_of_one_workspace_mean_nothing_in_another(alpha: Workspace, beta: Workspace) -> None:
    stream = uuid4()
    await alpha.log.append(Submission([event(stream, 1)], key=b"k", body_hash=b"b"))
    there = await beta.log.append(Submission([event(stream, 1)], key=b"k", body_hash=b"b"))
    assert (there.replayed, there.position) == (False, 1)
    await beta.log.append(Submission([event(stream, 2)]))
    assert await positions(alpha.log) == [1]
    assert await positions(beta.log) == [1, 2]
    assert (await alpha.log.head()).epoch != (await beta.log.head()).epoch


async def test_a_claimed_value_belongs_to_one_stream_until_it_is_given_up(alpha: Workspace, beta: Workspace) -> None:
    ann, bob = uuid4(), uuid4()
    await alpha.log.append(Submission([event(ann, 1)], claims=[Claim("email", b"x", ann)]))
    with pytest.raises(Claimed) as caught:
        await alpha.log.append(Submission([event(bob, 1)], claims=[Claim("email", b"x", bob)]))
    assert (caught.value.kind, caught.value.owner) == ("email", ann)
    assert await alpha.log.owner_of("email", b"x") == ann
    assert await alpha.log.owner_of("phone", b"x") is None
    assert await beta.log.owner_of("email", b"x") is None
    await alpha.log.append(Submission(claims=[Claim("email", b"x", ann, release=True), Claim("email", b"y", ann)]))
    await alpha.log.append(Submission([event(bob, 1)], claims=[Claim("email", b"x", bob)]))
    assert await alpha.log.owner_of("email", b"x") == bob
    assert await alpha.log.owner_of("email", b"y") == ann


async def test_two_commands_that_claim_one_value_in_one_batch_cannot_both_have_it(alpha: Workspace) -> None:
    streams = [uuid4() for _ in range(5)]
    results = await asyncio.gather(
        *(outcome(alpha.log, Submission([event(s, 1)], claims=[Claim("email", b"x", s)])) for s in streams)
    )
    assert [type(result) for result in results] == [Appended, Claimed, Claimed, Claimed, Claimed]
    assert await positions(alpha.log) == [1]


async def test_a_value_claimed_by_a_command_that_failed_stays_free(alpha: Workspace) -> None:
    stream = uuid4()
    with pytest.raises(Conflict):
        await alpha.log.append(Submission([event(stream, 4)], claims=[Claim("email", b"x", stream)]))
    assert await alpha.log.owner_of("email", b"x") is None


async def test_streams_and_pages_can_be_read_in_parts(alpha: Workspace) -> None:
    stream = uuid4()
    await alpha.log.append(Submission([event(stream, version) for version in range(1, 8)]))
    await alpha.log.append(Submission([NewEvent(uuid4(), 1, "other.thing", b"{}", None)]))
    assert [row.version for row in await alpha.log.stream(stream, after=2, upto=5)] == [3, 4, 5]
    assert [row.version for row in await alpha.log.stream(stream, limit=2)] == [1, 2]
    assert [row.position for row in await alpha.log.page(3, 2)] == [4, 5]
    assert [row.position for row in await alpha.log.page(0, 10, upto=2)] == [1, 2]
    assert [row.position for row in await alpha.log.page(0, 10, topics=["other.thing"])] == [8]
    assert await alpha.log.heads([stream, uuid4()]) == {stream: 7}
    assert await alpha.log.row(9) is None


async def test_whole_streams_are_read_by_one_statement_without_what_is_personal(alpha: Workspace) -> None:
    first, second = uuid4(), uuid4()
    for version in range(1, 4):
        personal = NewEvent(first, version, "thing.happened", b"{}", b"secret")
        await alpha.log.append(Submission([personal, event(second, version)]))
    found = await alpha.log.whole([second, uuid4(), first])
    assert {stream: [row.version for row in rows] for stream, rows in found.items()} == {
        first: [1, 2, 3],
        second: [1, 2, 3],
    }
    assert {row.personal for rows in found.values() for row in rows} == {None}


async def test_an_instant_resolves_to_one_position_and_is_provisional_until_something_later_is_recorded(
    alpha: Workspace,
) -> None:
    times: list[datetime] = []
    for _ in range(5):
        times.append((await alpha.log.append(Submission([event(uuid4(), 1)]))).recorded_at)
        await alpha.database.pool.check()
    for position, at in enumerate(times, start=1):
        assert await alpha.log.position_at(at) == (position, position == len(times))
    before = times[0].replace(year=2001)
    assert await alpha.log.position_at(before) == (0, False)


async def test_the_application_can_neither_insert_change_nor_delete_an_event(
    alpha: Workspace, settings: Settings
) -> None:
    await alpha.log.append(Submission([event(uuid4(), 1)]))
    assert settings.database_url is not None
    address = external_conninfo(settings.database_url, ROLE_NAMES["application"])
    table = Identifier("ws_alpha", "events")
    for statement in (
        SQL("UPDATE {} SET state = ''").format(table),
        SQL("DELETE FROM {}").format(table),
        SQL("TRUNCATE {}").format(table),
        SQL("INSERT INTO {} VALUES (2, gen_random_uuid(), 1, 't', '', NULL, now())").format(table),
        SQL("DROP TABLE {}").format(table),
    ):
        async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement)


async def test_a_reader_that_polls_while_others_append_never_passes_a_position_it_has_not_seen(
    database: Database, settings: Settings
) -> None:
    """The classic lost event: a lower position committed after a higher one was read."""
    seen: list[int] = []
    done = asyncio.Event()

    async def read(log: Log) -> None:
        while True:
            finished = done.is_set()
            page = await log.page(seen[-1] if seen else 0, 500)
            seen.extend(row.position for row in page)
            if finished and not page:
                return

    async def write(log: Log, commands: int) -> None:
        for _ in range(commands):
            stream = uuid4()
            await log.append(Submission([event(stream, 1), event(stream, 2)]))

    async with await Database.open(settings) as second, await Database.open(settings) as third:
        logs = [(await each.workspace("alpha")).log for each in (second, third)]
        reading = asyncio.create_task(read((await database.workspace("alpha")).log))
        await asyncio.gather(*(write(log, 60) for log in logs for _ in range(4)))
        done.set()
        await reading
    assert seen == list(range(1, 961))


async def test_an_append_whose_connection_dies_is_done_exactly_once(
    alpha: Workspace, server: Any, settings: Settings
) -> None:
    streams = [uuid4() for _ in range(200)]

    dbname = conninfo_to_dict(settings.database_url or "")["dbname"]

    async def kill() -> None:
        for _ in range(15):
            await asyncio.to_thread(
                server.execute,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                f" WHERE application_name LIKE 'desk append%' AND datname = '{dbname}'",
            )

    async def write(stream: UUID) -> list[Appended]:
        return [await alpha.log.append(Submission([event(stream, version, stream.bytes)])) for version in (1, 2, 3)]

    results, _ = await asyncio.gather(asyncio.gather(*map(write, streams)), kill())
    rows = await alpha.log.page(0, 10_000)
    assert [row.position for row in rows] == list(range(1, 601))
    for stream, appended in zip(streams, results, strict=True):
        mine = [row.position for row in rows if row.stream == stream]
        assert mine == [each.position for each in appended]


async def test_a_command_whose_reply_was_lost_is_known_though_another_holds_by_now_what_it_claimed(
    settings: Settings,
) -> None:
    ann, bob = uuid4(), uuid4()
    async with await Wire.to(settings.database_url or "", only="desk append") as wire:
        over_it = replace(settings, database_url=wire.conninfo(settings.database_url or ""))
        try:
            database = await Database.open(over_it)
        except DatabaseUnreachable as error:
            pytest.skip(unencrypted(error))
        async with database:
            log = (await database.workspace("alpha")).log
            await log.append(Submission([event(uuid4(), 1)]))
            wire.break_next(Cut.AFTER)
            results = await asyncio.gather(
                outcome(log, Submission([event(ann, 1, b"ann")], claims=[Claim("email", b"x", ann)])),
                outcome(log, Submission([event(ann, 2, b"ann")], claims=[Claim("email", b"x", ann, release=True)])),
                outcome(log, Submission([event(bob, 1, b"bob")], claims=[Claim("email", b"x", bob)])),
            )
            assert wire.broken == 1
            assert [type(result) for result in results] == [Appended] * 3
            assert await positions(log) == [1, 2, 3, 4]
            assert await log.owner_of("email", b"x") == bob


async def test_a_stalled_database_bounds_the_queue_and_every_caller_gets_an_answer(
    alpha: Workspace, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "APPEND_TIMEOUT", 0.3)
    alpha.log.waiting_commands = 5
    assert settings.database_url is not None
    async with await psycopg.AsyncConnection.connect(settings.database_url) as blocker:
        await blocker.execute("LOCK TABLE ws_alpha.events IN ACCESS EXCLUSIVE MODE")
        first = asyncio.create_task(outcome(alpha.log, Submission([event(uuid4(), 1)])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rest = await asyncio.gather(*(outcome(alpha.log, Submission([event(uuid4(), 1)])) for _ in range(10)))
        assert isinstance(await first, LogUnavailable)
        assert {type(each) for each in rest} == {LogUnavailable, LogBusy}
        await blocker.rollback()
    done = await alpha.log.append(Submission([event(uuid4(), 1)]))
    assert await positions(alpha.log) == list(range(1, done.position + 1))


async def test_a_caller_that_goes_away_before_its_turn_leaves_nothing(alpha: Workspace) -> None:
    task = asyncio.create_task(alpha.log.append(Submission([event(uuid4(), 1)])))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await alpha.log.drain()
    assert await positions(alpha.log) in ([], [1])


async def test_a_submission_that_holds_one_event_twice_is_refused_without_harming_its_batch(alpha: Workspace) -> None:
    stream = uuid4()
    good, bad = await asyncio.gather(
        outcome(alpha.log, Submission([event(uuid4(), 1)], key=b"k", body_hash=b"b")),
        outcome(alpha.log, Submission([event(stream, 1), event(stream, 1)])),
    )
    assert isinstance(good, Appended)
    assert isinstance(bad, Conflict)
    assert await positions(alpha.log) == [1]


async def test_one_key_twice_in_one_batch_is_carried_out_once(alpha: Workspace) -> None:
    stream = uuid4()
    results: Sequence[Appended | Exception] = await asyncio.gather(
        *(outcome(alpha.log, Submission([event(stream, 1)], key=b"k", body_hash=b"b", result=b"r")) for _ in range(3))
    )
    assert [type(each) for each in results] in ([Appended] * 3, [Appended, Conflict, Conflict])
    assert await positions(alpha.log) == [1]


async def test_listeners_are_woken_by_what_another_process_appends(settings: Settings, database: Database) -> None:
    woken: set[str] = set()

    async def listen() -> None:
        async with aclosing(database.listen()) as news:
            async for names in news:
                woken.update(names)
                if "beta" in woken:
                    return

    listening = asyncio.create_task(listen())
    async with await Database.open(settings) as other:
        log = (await other.workspace("beta")).log
        while not listening.done():
            await log.append(Submission([event(uuid4(), 1)]))
            await asyncio.wait([listening], timeout=0.05)
    assert woken == {"beta"}


async def test_who_closes_right_after_an_append_has_woken_the_listeners_all_the_same(settings: Settings) -> None:
    heard: list[str] = []
    async with await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True) as listening:
        await listening.execute(f"LISTEN {CHANNEL}".encode())
        for _ in range(5):
            async with await Database.open(settings) as database:
                await (await database.workspace("alpha")).log.append(Submission([event(uuid4(), 1)]))
            heard += [notice.payload async for notice in listening.notifies(timeout=10, stop_after=1)]
    assert heard == ["alpha"] * 5


async def test_outcomes_of_keys_are_dropped_by_the_week_and_not_before_seven_days(
    alpha: Workspace, settings: Settings
) -> None:
    await alpha.log.append(Submission([event(uuid4(), 1)], key=b"new", body_hash=b"b"))
    async with await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True) as owner:
        for days in (0, 6, 20, 90):
            await owner.execute(
                "INSERT INTO ws_alpha.command_outcomes VALUES (%s, current_date - %s::int, 'b', 1, 1)",
                (f"{days} days old".encode(), days),
            )
        for _ in range(2):
            await alpha.log.rotate_outcomes()
        cursor = await owner.execute("SELECT command_key FROM ws_alpha.command_outcomes ORDER BY 1")
        assert [row[0] for row in await cursor.fetchall()] == [b"0 days old", b"6 days old", b"new"]
        cursor = await owner.execute(
            "SELECT count(*) FROM ws_alpha.command_outcomes_rest WHERE recorded_on >= current_date"
        )
        assert await cursor.fetchone() == (0,)


async def test_a_week_without_a_partition_loses_no_outcome_and_is_given_one_later(
    alpha: Workspace, settings: Settings
) -> None:
    async with await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True) as owner:
        cursor = await owner.execute(
            "SELECT relname FROM pg_class WHERE relname ~ '^command_outcomes_[0-9]{8}$'"
            " AND relnamespace = 'ws_alpha'::regnamespace"
        )
        names = [row[0] for row in await cursor.fetchall()]
        assert len(names) == 5
        for name in names:
            await owner.execute(SQL("DROP TABLE {}").format(Identifier("ws_alpha", name)))
        done = await alpha.log.append(Submission([event(uuid4(), 1)], key=b"k", body_hash=b"b"))
        await alpha.log.rotate_outcomes()
        cursor = await owner.execute("SELECT count(*) FROM ws_alpha.command_outcomes_rest")
        assert await cursor.fetchone() == (0,)
    again = await alpha.log.append(Submission([event(uuid4(), 1)], key=b"k", body_hash=b"b"))
    assert (again.replayed, again.position) == (True, done.position)

"""Epochs: what positions of before mean after the log went on elsewhere, or was set back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from storage.append import Appended, EarlierEpoch, NewEvent, Submission
from storage.database import Database
from storage.epochs import renew
from storage.settings import external_conninfo

if TYPE_CHECKING:
    from storage.database import Workspace
    from storage.settings import Settings


def event(stream: UUID, version: int, state: bytes = b"{}") -> NewEvent:
    return NewEvent(stream, version, "thing.happened", state, None)


def execute(settings: Settings, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Do something as an administrator of the database would."""
    with psycopg.connect(settings.database_url or "", autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []


def set_back(settings: Settings, position: int) -> None:
    """Take the end of alpha's log away, as putting back an older copy of its files would, and end the connections."""
    execute(settings, "DELETE FROM ws_alpha.events WHERE notification_id > %s", position)
    end_connections(settings)


def end_connections(settings: Settings) -> None:
    execute(
        settings,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'desk%%'",
    )


async def test_a_copy_of_a_database_begins_an_epoch_with_its_first_append_and_many_processes_begin_one(
    settings: Settings, alpha: Workspace
) -> None:
    before = await alpha.log.epoch()
    async with await Database.open(settings) as second, await Database.open(settings) as third:
        logs = [alpha.log, *[(await each.workspace("alpha")).log for each in (second, third)]]
        await asyncio.gather(*(log.append(Submission([event(uuid4(), 1)])) for log in logs))
        assert len({await log.epoch() for log in logs}) == 1
        assert {(await log.head()).epoch for log in logs} == {await alpha.log.epoch()}
    made, went_on = await alpha.log.epochs.all()
    assert (made.epoch, made.after_position) == (before, 0)
    assert (went_on.epoch, went_on.after_position) == (await alpha.log.epoch(), 0)
    assert went_on.epoch != before
    assert went_on.reason.startswith("the log went on in another place (before: server ")


async def test_a_process_that_opens_the_log_again_stays_in_its_epoch(settings: Settings, alpha: Workspace) -> None:
    await alpha.log.append(Submission([event(uuid4(), 1)]))
    epoch = await alpha.log.epoch()
    end_connections(settings)
    await alpha.log.append(Submission([event(uuid4(), 1)]))
    async with await Database.open(settings) as second:
        log = (await second.workspace("alpha")).log
        await log.append(Submission([event(uuid4(), 1)]))
        assert await log.epoch() == epoch
    assert len(await alpha.log.epochs.all()) == 2


async def test_positions_of_before_hold_as_far_as_every_epoch_since_took_them_over(
    settings: Settings, alpha: Workspace
) -> None:
    epochs = alpha.log.epochs
    for _ in range(9):
        await alpha.log.append(Submission([event(uuid4(), 1)]))
    first = await epochs.current()
    async with await Database.open(settings, role="owner") as owner:
        workspace = await owner.workspace("alpha")
        second = await renew(workspace, "half of it is in doubt", trusted=5)
        await alpha.log.append(Submission([event(uuid4(), 1)]))
        assert await epochs.current() == second
        assert [await epochs.hold(position, first) for position in (0, 5, 6, 9)] == [True, True, False, False]
        assert await epochs.hold(10, second)
        third = await renew(workspace, "more of it is in doubt", trusted=3)
        await alpha.log.append(Submission([event(uuid4(), 1)]))
        assert [await epochs.hold(position, first) for position in (3, 4, 5)] == [True, False, False]
        assert [await epochs.hold(position, second) for position in (3, 4)] == [True, False]
        assert await epochs.hold(11, third)
        assert not await epochs.hold(0, "unknown")
        for wrong in ({"trusted": 99}, {"trusted": -1}):
            with pytest.raises(ValueError, match="positions up to 11"):
                await renew(workspace, "a mistake", **wrong)
        with pytest.raises(ValueError, match="reason"):
            await renew(workspace, " ")
    assert [one.reason for one in await epochs.all()][-2:] == ["half of it is in doubt", "more of it is in doubt"]


async def test_a_log_that_lost_what_a_process_saw_begins_an_epoch_and_nothing_of_before_is_trusted(
    settings: Settings, alpha: Workspace
) -> None:
    for _ in range(5):
        await alpha.log.append(Submission([event(uuid4(), 1)]))
    before = await alpha.log.epoch()
    set_back(settings, 3)
    # Somebody else is first, who has seen nothing, and fills the place of what was lost.
    async with await Database.open(settings) as second:
        for _ in range(4):
            await (await second.workspace("alpha")).log.append(Submission([event(uuid4(), 1)]))
    await alpha.log.append(Submission([event(uuid4(), 1)]))
    assert await alpha.log.epoch() != before
    assert not await alpha.log.epochs.hold(1, before)
    last = (await alpha.log.epochs.all())[-1]
    assert (last.after_position, last.reason) == (0, "the log lost the event that was at position 5")


async def test_what_was_decided_in_an_earlier_epoch_is_not_recorded_unless_it_is_there_already(
    settings: Settings, alpha: Workspace
) -> None:
    stream = uuid4()
    there = Submission([event(stream, 1, b'{"mine":1}')])
    await alpha.log.append(there)
    there.epoch = late = await alpha.log.epoch()
    async with await Database.open(settings, role="owner") as owner:
        await renew(await owner.workspace("alpha"), "to see what happens")
    outcomes = await asyncio.gather(
        alpha.log.append(Submission([event(uuid4(), 1)], epoch=late)),
        alpha.log.append(Submission(guards={stream: 1}, epoch=late)),
        alpha.log.append(there),
        alpha.log.append(Submission([event(uuid4(), 1)])),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [EarlierEpoch, EarlierEpoch, Appended, Appended]
    assert isinstance(outcomes[2], Appended)
    assert outcomes[2].position == 1
    assert (await alpha.log.head()).position == 2


async def test_keys_of_persons_are_forgotten_with_the_epoch_they_were_made_in(
    settings: Settings, alpha: Workspace
) -> None:
    person = uuid4()
    await alpha.log.append(Submission([event(person, 1)]))
    await alpha.keyring.ensure([person])
    execute(settings, "DELETE FROM ws_alpha.personal_keys")
    set_back(settings, 0)
    await alpha.log.append(Submission([event(person, 1)]))
    await alpha.keyring.ensure([person])
    assert execute(settings, "SELECT subject_id FROM ws_alpha.personal_keys") == [(person,)]


@pytest.mark.parametrize("role", ["ledgerdesk_app", "ledgerdesk_reader"])
async def test_only_an_administrator_begins_an_epoch_by_hand(settings: Settings, role: str) -> None:
    address = external_conninfo(settings.database_url or "", role)
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
        for statement in (
            b"SELECT ws_alpha.renew_epoch('mine', 0)",
            b"INSERT INTO ws_alpha.log_epochs VALUES (9, 'mine', 0, now(), 'mine')",
            b"UPDATE ws_alpha.log_identity SET epoch = 'mine'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement)

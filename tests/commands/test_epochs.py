"""Commands when the log was set back: nothing is decided on what is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.ticket import Ticket
from storage.database import Database
from tests.commands.sending import Sender
from tests.storage.test_epochs import execute, set_back

if TYPE_CHECKING:
    from storage.database import Workspace
    from storage.settings import Settings


async def test_a_ticket_held_in_memory_is_forgotten_with_the_events_that_made_it_so(
    settings: Settings, alpha: Workspace
) -> None:
    sender = Sender.at(alpha)
    ticket, agent = await sender.ticket(), await sender.agent()
    await sender.send("ticket", "assign", ticket, agent_id=agent)
    kept = (await alpha.log.head()).position - 1
    set_back(settings, kept)
    # A no-op, were it decided on what is held.
    again = await sender.send("ticket", "assign", ticket, agent_id=agent)
    assert (again.changed, again.version, again.position) == (True, 2, kept + 1)


async def test_a_version_given_anew_by_another_process_does_not_pass_for_the_one_that_was_lost(
    settings: Settings, alpha: Workspace
) -> None:
    sender = Sender.at(alpha)
    ticket, agent = await sender.ticket(), await sender.agent()
    await sender.send("ticket", "assign", ticket, agent_id=agent)
    kept = (await alpha.log.head()).position - 1
    set_back(settings, kept)
    async with await Database.open(settings) as second:
        other = Sender.at(await second.workspace("alpha"))
        noted = await other.send("ticket", "add-note", ticket, text="seen by another process")
        assert noted.version == 2
    again = await sender.send("ticket", "assign", ticket, agent_id=agent)
    assert (again.changed, again.version, again.position) == (True, 3, kept + 2)
    assert (await sender.desk.load(Ticket, ticket)).version == 3


async def test_a_repeated_command_whose_effect_is_lost_is_carried_out_again(
    settings: Settings, alpha: Workspace
) -> None:
    sender = Sender.at(alpha)
    customer = await sender.customer()
    said: dict[str, Any] = {"requester_id": customer, "subject": "A", "body": "B"}
    first = await sender.send("ticket", "open", key="k", **said)
    set_back(settings, first.position - 1)

    execute(settings, "DELETE FROM ws_alpha.command_outcomes")
    again = await sender.send("ticket", "open", key="k", **said)
    assert (again.replayed, again.changed, again.position) == (False, True, first.position)
    assert again.stream != first.stream

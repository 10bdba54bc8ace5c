"""Two processes serve one desk: what one of them remembers must never be what it answers by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from commands.execution import COMMANDS
from commands.identity import stream_id_for
from domain.event import Rejected
from domain.service_levels import SERVICE_LEVELS_ID
from domain.ticket import MOST_TAGS
from domain.what_if import NothingToCompare
from storage.database import Database
from tests.commands.sending import Sender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from uuid import UUID

    from commands.desk import Kind
    from commands.request import Outcome
    from storage.database import Workspace
    from storage.settings import Settings


@dataclass(frozen=True)
class Say:
    """A command as these tables write it: a value that names somebody of the scene stands for that one's id."""

    target: str
    name: str
    fields: Mapping[str, Any]


def say(target: str, name: str, /, **fields: Any) -> Say:
    return Say(target, name, fields)


class Scene:
    """Two workers at one desk, and what there is at it."""

    def __init__(self, here: Sender, there: Sender) -> None:
        self.here = here
        self.there = there
        self.ids: dict[str, UUID] = {}

    async def prepare(self) -> None:
        """Make everything through the worker whose memory is to go stale."""
        here = self.here
        self.ids |= {"network": await here.team("Network"), "systems": await here.team("Systems")}
        self.ids |= {"bob": await here.agent("Bob"), "eve": await here.agent("Eve")}
        self.ids["ann"] = await here.customer("Ann", email="ann@example.org")
        self.ids["carol"] = await here.customer("Carol")
        self.ids["ticket"] = await here.ticket(self.ids["ann"], foreign_id="crm:1")
        self.ids["service levels"] = SERVICE_LEVELS_ID
        self.ids["other"] = await here.ticket(self.ids["ann"])

    async def send(self, worker: Sender, said: Say) -> Outcome:
        """Let one of the workers carry a command out."""
        kind: Kind = next(kind for kind, name in COMMANDS if name == said.name and self.is_a(said.target, kind))
        fields = {name: self.named(value) for name, value in said.fields.items()}
        return await worker.send(kind, said.name, self.ids.get(said.target), **fields)

    def named(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.named(one) for one in value]
        return self.ids.get(value, value) if isinstance(value, str) else value

    @staticmethod
    def is_a(target: str, kind: str) -> bool:
        kinds = {"ticket": "ticket", "other": "ticket", "ann": "customer", "carol": "customer", "bob": "agent"}
        kinds["service levels"] = "service_levels"
        return kinds.get(target, target.removeprefix("new ") if target.startswith("new ") else "team") == kind


@pytest.fixture
async def scene(alpha: Workspace, settings: Settings) -> AsyncIterator[Scene]:
    async with await Database.open(settings) as another:
        made = Scene(Sender.at(alpha), Sender.at(await another.workspace("alpha")))
        await made.prepare()
        yield made


def refusals() -> Iterator[str]:
    """Name every refusal that there is."""
    waiting: list[type[Rejected]] = [Rejected]
    while waiting:
        found = waiting.pop().__subclasses__()
        waiting += found
        # Refusals that tests make up do not count.
        yield from (
            one.problem for one in found if "problem" in one.__dict__ and not one.__module__.startswith("tests")
        )


SOON = datetime.now(UTC) + timedelta(days=1)
ASSIGNED = say("ticket", "assign", agent_id="bob", team_id="network")
SOLVED = say("ticket", "solve", resolution_code="fixed")
CLOSED = say("ticket", "close")
OFFICE = say(
    "service levels", "adopt-calendar", name="office", time_zone="Asia/Shanghai", hours={"mon": [["09:00", "18:00"]]}
)
LONGER = say(
    "service levels", "adopt-calendar", name="office", time_zone="Asia/Shanghai", hours={"mon": [["08:00", "18:00"]]}
)
TARGETS = [{"metric": "first_reply", "amount": 3600}]
ADOPTED = say("service levels", "adopt-policy", name="all", calendar="office", targets=TARGETS)
STRICTER = say("service levels", "adopt-policy", name="all", targets=[{"metric": "first_reply", "amount": 60}])
RETIRED = say("service levels", "retire-policy", name="all")
LEVEL_2 = say("ticket", "escalate", level=2, team_id="network", reason="hard")
MANY = [f"tag {number}" for number in range(MOST_TAGS)]

NO_LONGER: dict[str, tuple[list[Say], Say, list[Say]]] = {
    "move-not-allowed": ([SOLVED], say("ticket", "set-pending"), [say("ticket", "reopen")]),
    "level-not-higher": (
        [LEVEL_2], say("ticket", "escalate", level=1, team_id="systems", reason="odd"), [say("ticket", "de-escalate")],
    ),
    "level-not-lower": ([], say("ticket", "de-escalate", level=1), [LEVEL_2]),
    "no-such-version": (
        [], say("ticket", "correct", corrected_version=2, note="no"), [say("ticket", "tag", tags=["a"])],
    ),
    "too-many": (
        [say("ticket", "tag", tags=MANY)], say("ticket", "tag", tags=["more"]), [say("ticket", "untag", tags=MANY[:1])],
    ),
    "priority-undetermined": (
        [],
        say("ticket", "change-priority", impact="high"),
        [say("ticket", "change-priority", impact="low", urgency="low")],
    ),
    "agent-inactive": (
        [say("bob", "deactivate")], say("ticket", "assign", agent_id="bob"), [say("bob", "reactivate")],
    ),
    "team-inactive": (
        [say("network", "deactivate")], say("ticket", "transfer", team_id="network"), [say("network", "reactivate")],
    ),
    "contact-known": (
        [], say("carol", "change-contact", email="ann@example.org"), [say("ann", "change-contact", email=None)],
    ),
    "unknown-calendar": ([], ADOPTED, [OFFICE]),
    "unknown-policy": (
        [], say("service levels", "retire-policy", name="all"), [OFFICE, ADOPTED],
    ),
    "unknown-reference": (
        [],
        say("ticket", "assign", agent_id=str(stream_id_for("agent", "crm:zoe"))),
        [say("new agent", "create", name="Zoe", foreign_id="crm:zoe")],
    ),
}  # fmt: skip
"""Refusal → what leads to it here, the command that meets it, and what another worker does that takes it away."""

BY_NOW_CLOSED: dict[str, tuple[list[Say], Say, list[Say]]] = {
    "nobody-named": ([], say("ticket", "assign"), [SOLVED, CLOSED]),
    "wake-up-not-later": ([], say("ticket", "set-pending", wake_at=datetime(2020, 1, 1, tzinfo=UTC)), [SOLVED, CLOSED]),
    "due-before-opening": (
        [],
        say("ticket", "set-due-date", metric="first_reply", due_at=datetime(2020, 1, 1, tzinfo=UTC), reason="so"),
        [SOLVED, CLOSED],
    ),
    "move-not-allowed": ([SOLVED], say("ticket", "set-pending"), [CLOSED]),
    "priority-undetermined": ([], say("ticket", "change-priority", impact="high"), [SOLVED, CLOSED]),
}
"""Refusal → what comes first, a command that meets it, and how the ticket is closed: then that is what has to be said."""

SAID_BY_THE_COMMAND_ALONE = {
    "ticket-closed": "final, so a copy that says so is never stale; that it is found out in time is tested below",
    "reason-required": "the command's model wants one before the rule is asked",
    "level-unknown": "the command's own values are out of range; HTTP refuses them before",
    "linked-to-itself": "so whatever the ticket is",
    "correction-without-field": "so whatever the ticket is",
    "not-from-a-source": "no command of the desk says it",
    "occurred-before-opening": "a ticket was opened when it was opened",
    "occurred-later": "said of the clock, not of the desk",
    "unusable-calendar": "so whatever has been adopted",
    "unusable-policy": "so whatever has been adopted",
    NothingToCompare.problem: "no command of the desk says it",
    "attachment-too-large": "an upload's size never changes",
    "already-exists": "nothing that exists ever ceases to; that it is found out in time is tested below",
}
"""Refusals that no other worker's doing can take away, and why."""


def test_every_refusal_is_told_by_two_workers_or_needs_none() -> None:
    assert set(refusals()) == {*NO_LONGER, *BY_NOW_CLOSED, *SAID_BY_THE_COMMAND_ALONE}


async def refused_here(scene: Scene, before: list[Say], command: Say, refusal: str) -> None:
    """Have a command refused by the worker whose memory is to go stale."""
    for said in before:
        await scene.send(scene.here, said)
    with pytest.raises(Rejected) as refused:
        await scene.send(scene.here, command)
    assert refused.value.problem == refusal


@pytest.mark.parametrize("refusal", NO_LONGER)
async def test_a_refusal_that_another_worker_took_away_is_not_given(scene: Scene, refusal: str) -> None:
    before, command, between = NO_LONGER[refusal]
    await refused_here(scene, before, command, refusal)
    for said in between:
        assert (await scene.send(scene.there, said)).changed
    assert (await scene.send(scene.here, command)).changed


@pytest.mark.parametrize("refusal", BY_NOW_CLOSED)
async def test_a_refusal_is_the_one_that_holds_now(scene: Scene, refusal: str) -> None:
    before, command, between = BY_NOW_CLOSED[refusal]
    await refused_here(scene, before, command, refusal)
    for said in between:
        await scene.send(scene.there, said)
    with pytest.raises(Rejected) as refused:
        await scene.send(scene.here, command)
    assert refused.value.problem == "ticket-closed"


async def test_what_another_worker_opened_under_a_foreign_id_exists_here_as_well(scene: Scene) -> None:
    with pytest.raises(Rejected) as refused:
        await scene.send(
            scene.there, say("new ticket", "open", requester_id="ann", subject="A", body="B", foreign_id="crm:1")
        )
    assert refused.value.problem == "already-exists"


NEVER_WITHOUT_CHANGE = {
    "open", "create", "register",  # there is something new
    "reply", "add-note", "record-customer-message",  # what was said twice was said twice
}  # fmt: skip

REPEATED: dict[tuple[str, str], tuple[list[Say], Say, list[Say]]] = {
    ("ticket", "assign"): ([], ASSIGNED, [say("ticket", "assign", agent_id="eve")]),
    ("ticket", "unassign"): ([ASSIGNED], say("ticket", "unassign"), [ASSIGNED]),
    ("ticket", "transfer"): (
        [], say("ticket", "transfer", team_id="network"), [say("ticket", "transfer", team_id="systems")],
    ),
    ("ticket", "escalate"): ([], LEVEL_2, [say("ticket", "de-escalate", level=1)]),
    ("ticket", "de-escalate"): ([LEVEL_2], say("ticket", "de-escalate"), [LEVEL_2]),
    ("ticket", "change-priority"): (
        [], say("ticket", "change-priority", priority="high"), [say("ticket", "change-priority", priority="low")],
    ),
    ("ticket", "categorise"): (
        [], say("ticket", "categorise", category="a"), [say("ticket", "categorise", category=None)],
    ),
    ("ticket", "set-pending"): ([], say("ticket", "set-pending", wake_at=SOON), [say("ticket", "resume")]),
    ("ticket", "put-on-hold"): (
        [], say("ticket", "put-on-hold", third_party="a"), [say("ticket", "put-on-hold", third_party="b")],
    ),
    ("ticket", "resume"): (
        [say("ticket", "set-pending")], say("ticket", "resume"), [say("ticket", "set-pending")],
    ),
    ("ticket", "solve"): ([], SOLVED, [say("ticket", "reopen")]),
    ("ticket", "reopen"): ([SOLVED], say("ticket", "reopen"), [SOLVED]),
    ("ticket", "tag"): ([], say("ticket", "tag", tags=["a"]), [say("ticket", "untag", tags=["a"])]),
    ("ticket", "untag"): (
        [say("ticket", "tag", tags=["a"])], say("ticket", "untag", tags=["a"]), [say("ticket", "tag", tags=["a"])],
    ),
    ("ticket", "set-custom-field"): (
        [],
        say("ticket", "set-custom-field", name="a", value="1"),
        [say("ticket", "set-custom-field", name="a", value=None)],
    ),
    ("ticket", "change-subject"): (
        [], say("ticket", "change-subject", subject="a"), [say("ticket", "change-subject", subject="b")],
    ),
    ("ticket", "change-type"): (
        [], say("ticket", "change-type", type="problem"), [say("ticket", "change-type", type="task")],
    ),
    ("ticket", "change-requester"): (
        [],
        say("ticket", "change-requester", requester_id="carol"),
        [say("ticket", "change-requester", requester_id="ann")],
    ),
    ("ticket", "set-due-date"): (
        [],
        say("ticket", "set-due-date", metric="first_reply", due_at=SOON, reason="agreed"),
        [say("ticket", "set-due-date", metric="first_reply", due_at=None, reason="not agreed")],
    ),
    ("ticket", "add-cc"): (
        [], say("ticket", "add-cc", customer_id="carol"), [say("ticket", "remove-cc", customer_id="carol")],
    ),
    ("ticket", "remove-cc"): (
        [say("ticket", "add-cc", customer_id="carol")],
        say("ticket", "remove-cc", customer_id="carol"),
        [say("ticket", "add-cc", customer_id="carol")],
    ),
    ("ticket", "correct"): (
        [],
        say("ticket", "correct", corrected_version=1, note="a"),
        [say("ticket", "correct", corrected_version=1, note="b")],
    ),
    ("agent", "rename"): ([], say("bob", "rename", name="Rob"), [say("bob", "rename", name="Bob")]),
    ("agent", "deactivate"): ([], say("bob", "deactivate"), [say("bob", "reactivate")]),
    ("agent", "reactivate"): ([say("bob", "deactivate")], say("bob", "reactivate"), [say("bob", "deactivate")]),
    ("agent", "join-team"): (
        [], say("bob", "join-team", team_id="network"), [say("bob", "leave-team", team_id="network")],
    ),
    ("agent", "leave-team"): (
        [say("bob", "join-team", team_id="network")],
        say("bob", "leave-team", team_id="network"),
        [say("bob", "join-team", team_id="network")],
    ),
    ("customer", "change-contact"): (
        [], say("ann", "change-contact", phone="+43 1 234567"), [say("ann", "change-contact", phone=None)],
    ),
    ("customer", "change-tier"): ([], say("ann", "change-tier", tier="gold"), [say("ann", "change-tier", tier="vip")]),
    ("customer", "join-organisation"): (
        [],
        say("ann", "join-organisation", organisation="A"),
        [say("ann", "join-organisation", organisation="B")],
    ),
    ("team", "rename"): ([], say("network", "rename", name="Net"), [say("network", "rename", name="Network")]),
    ("team", "deactivate"): ([], say("network", "deactivate"), [say("network", "reactivate")]),
    ("service_levels", "adopt-calendar"): ([], OFFICE, [LONGER]),
    ("service_levels", "adopt-policy"): ([OFFICE], ADOPTED, [STRICTER]),
    ("service_levels", "retire-policy"): ([OFFICE, ADOPTED], RETIRED, [ADOPTED]),
    ("team", "reactivate"): (
        [say("network", "deactivate")], say("network", "reactivate"), [say("network", "deactivate")],
    ),
}  # fmt: skip
"""Command → what comes first here, the command, and what another worker does so that it has something to do again."""

STAYS_DONE = {("ticket", "link"), ("ticket", "close")}
"""What cannot be taken back, so that a copy that says it is done is never stale."""


def test_every_command_that_may_change_nothing_is_told_by_two_workers() -> None:
    told = {(kind, name) for kind, name in COMMANDS if name not in NEVER_WITHOUT_CHANGE}
    assert told == {*REPEATED, *STAYS_DONE}


@pytest.mark.parametrize("command", REPEATED, ids=" ".join)
async def test_a_command_that_changed_nothing_does_once_another_worker_made_it_mean_something(
    scene: Scene, command: tuple[str, str]
) -> None:
    before, said, between = REPEATED[command]
    for one in before:
        await scene.send(scene.here, one)
    assert (await scene.send(scene.here, said)).changed
    assert not (await scene.send(scene.here, said)).changed
    for one in between:
        assert (await scene.send(scene.there, one)).changed
    assert (await scene.send(scene.here, said)).changed

"""What clients did and were told: the evidence that a round is judged by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

LOST = 0
"""The status of an attempt that got no answer: timed out, or its connection broke."""

ACKNOWLEDGED = frozenset({200, 201})
UNDECIDED = frozenset({LOST, 429, 500, 502, 503, 504})
"""Answers after which a client cannot know whether its command was recorded, and asks again with its key."""


@dataclass(slots=True)
class Attempt:
    """One sending of a command. Times are seconds of one monotonic clock; no answer is status LOST."""

    sent_at: float
    answered_at: float
    status: int
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def problem(self) -> str:
        """The name of the problem that was answered, or nothing."""
        return str(self.answer.get("type", "")).removeprefix("/problems/")


@dataclass(slots=True)
class Sent:
    """One command of one client, with every attempt under its key.

    `marker` travels as the request's id and lies in each event that the command brought forth, whichever attempt it
    was; `name` is `kind.command`. `target` is None for a command that creates something. One that is not `keyed` was
    sent once.
    """

    marker: UUID
    client: int
    name: str
    target: UUID | None
    body: dict[str, Any]
    expected_version: int | None = None
    keyed: bool = True
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def acknowledgements(self) -> list[Attempt]:
        """The attempts that were answered with success; all have to tell the same."""
        return [attempt for attempt in self.attempts if attempt.status in ACKNOWLEDGED]

    @property
    def refusals(self) -> list[Attempt]:
        """The attempts that were answered with a refusal."""
        return [one for one in self.attempts if one.status not in ACKNOWLEDGED and one.status not in UNDECIDED]

    @property
    def in_doubt(self) -> bool:
        """Whether some attempt was left without an answer that says what became of it."""
        return any(attempt.status in UNDECIDED for attempt in self.attempts)

    @property
    def stream(self) -> UUID | None:
        """The thing that was commanded, or created."""
        if self.target is not None:
            return self.target
        told = self.acknowledgements
        return UUID(told[0].answer["id"]) if told else None


@dataclass(slots=True)
class Seen:
    """A ticket as one client read it."""

    ticket: UUID
    sent_at: float
    answered_at: float
    version: int
    status: str
    agent: str | None
    category: str | None
    level: int
    tags: frozenset[str]


@dataclass(slots=True)
class History:
    """Everything the clients of a run did."""

    commands: list[Sent] = field(default_factory=list)
    reads: list[Seen] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What was done to the desk, in order, for a person who has to find out."""

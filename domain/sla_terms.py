"""The words of service levels that events of tickets use: what is measured, and by which agreed terms."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Metric(StrEnum):
    """What is promised or measured about a ticket."""

    FIRST_REPLY = "first_reply"
    """From the first customer contact to the first public agent reply."""
    NEXT_REPLY = "next_reply"
    """From the oldest customer message that nobody has answered to the next public agent reply."""
    PERIODIC_UPDATE = "periodic_update"
    """From one public agent reply to the next, while the ticket is worked on."""
    REQUESTER_WAIT = "requester_wait"
    """The time that the requester waits for the desk."""
    AGENT_WORK = "agent_work"
    """The time that the desk itself has the ticket to work on."""
    TOTAL_RESOLUTION = "total_resolution"
    """From opening to solved, without the time that the ticket was held for solved."""
    OWNERSHIP = "ownership"
    """The time that one team has the ticket, from entering it to leaving it; a clock for each stay."""


class SlaTerms(BaseModel):
    """Which version of which policy and calendar a ticket goes by; without a policy nothing is promised.

    A ticket of which no terms are known at all goes by the promises of a desk that has made no others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str | None = None
    policy_version: int | None = None
    calendar: str | None = None
    calendar_version: int | None = None

"""How urgent a ticket is: its priority, and how impact and urgency make one."""

from __future__ import annotations

from enum import StrEnum


class Priority(StrEnum):
    """How soon a ticket wants to be dealt with."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"


class Grade(StrEnum):
    """How wide an impact, or how pressing an urgency, is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


MATRIX: dict[tuple[Grade, Grade], Priority] = {
    (Grade.HIGH, Grade.HIGH): Priority.URGENT,
    (Grade.HIGH, Grade.MEDIUM): Priority.HIGH,
    (Grade.HIGH, Grade.LOW): Priority.NORMAL,
    (Grade.MEDIUM, Grade.HIGH): Priority.HIGH,
    (Grade.MEDIUM, Grade.MEDIUM): Priority.NORMAL,
    (Grade.MEDIUM, Grade.LOW): Priority.LOW,
    (Grade.LOW, Grade.HIGH): Priority.NORMAL,
    (Grade.LOW, Grade.MEDIUM): Priority.LOW,
    (Grade.LOW, Grade.LOW): Priority.LOW,
}
"""(impact, urgency) → priority, as in ITIL, whose two lowest grades are one here."""


def priority_of(impact: Grade, urgency: Grade) -> Priority:
    """Look the priority up in the matrix."""
    return MATRIX[impact, urgency]

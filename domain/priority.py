"""How urgent a ticket is: its priority, and how impact and urgency make one."""

from __future__ import annotations

from enum import StrEnum

from domain.event import Rejected


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


class PriorityUndetermined(Rejected):
    """A priority follows from impact and urgency only where both are known."""

    problem = "priority-undetermined"

    def __init__(self, missing: tuple[str, ...]) -> None:
        super().__init__(f"without a priority, {' and '.join(missing)} must be known", missing=list(missing))


def determine(priority: Priority | None, impact: Grade | None, urgency: Grade | None) -> Priority:
    """Take the priority that is given, else look it up. Raises PriorityUndetermined where either grade is missing."""
    if priority is not None:
        return priority
    if impact is None or urgency is None:
        missing = tuple(name for name, grade in (("impact", impact), ("urgency", urgency)) if grade is None)
        raise PriorityUndetermined(missing)
    return MATRIX[impact, urgency]

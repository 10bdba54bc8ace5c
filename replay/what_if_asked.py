"""What a what-if is asked: which policies and calendars are to be imagined, and of which tickets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from commands.holidays import Holidays  # noqa: TC001 - pydantic reads the annotation at run time
from domain.calendar import CalendarTerms
from domain.calendar_faults import verify
from domain.sla_policy import PolicyTerms
from domain.text import Label  # noqa: TC001 - pydantic reads the annotation at run time
from domain.what_if import Axis, Given

if TYPE_CHECKING:
    from datetime import datetime

SHOWN: Final = 50
MOST_SHOWN: Final = 1_000
MOST_GIVEN: Final = 100

Terms = TypeVar("Terms", bound=BaseModel)


class GivenPolicy(PolicyTerms):
    """A policy as `desk sla adopt-policy` takes it; what that says about open tickets, and why, does not matter here."""

    name: Label = "what-if"
    open_tickets: Any = Field(default=None, exclude=True)
    reason: Any = Field(default=None, exclude=True)


class GivenCalendar(CalendarTerms):
    """A calendar as `desk sla adopt-calendar` takes it; holidays may be named by country, and are looked up."""

    name: Label
    holidays: Holidays = None
    open_tickets: Any = Field(default=None, exclude=True)
    reason: Any = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def verified(self) -> Self:
        """Refuse what could not be adopted."""
        verify(self)
        return self


Policies = Annotated[tuple[GivenPolicy, ...], Field(min_length=1, max_length=MOST_GIVEN)]
Calendars = Annotated[tuple[GivenCalendar, ...], Field(max_length=MOST_GIVEN)]


class Asked(BaseModel):
    """What is to be imagined, and of which tickets: those opened from an instant to before another, of some teams.

    `policy` stands beside the desk's own, in place of the one of its name; `policies` are instead of all of them. A
    calendar is as if adopted last under its name. Outcomes are as of `as_of`, or else of when it is asked. `flips` bounds
    those that are shown in each direction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: GivenPolicy | None = None
    policies: Policies | None = None
    calendars: Calendars = ()
    axis: Axis = Axis.AS_KNOWN
    opened_from: AwareDatetime | None = None
    opened_to: AwareDatetime | None = None
    team_ids: Annotated[tuple[UUID, ...], Field(min_length=1, max_length=MOST_GIVEN)] | None = None
    as_of: AwareDatetime | None = None
    flips: Annotated[int, Field(ge=0, le=MOST_SHOWN)] = SHOWN

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not self._policies and not self.calendars:
            message = "give policies, calendars or both"
            raise ValueError(message)
        if self.policy is not None and self.policies is not None:
            message = "give one policy to stand beside the desk's own, or all there are, not both"
            raise ValueError(message)
        for what, given in (("policies", self._policies), ("calendars", self.calendars)):
            names = [one.name for one in given]
            if len(names) != len(set(names)):
                message = f"each of the {what} has a name of its own"
                raise ValueError(message)
        if self.opened_from is not None and self.opened_to is not None and self.opened_to <= self.opened_from:
            message = "opened_to comes after opened_from"
            raise ValueError(message)
        return self

    @property
    def _policies(self) -> tuple[GivenPolicy, ...]:
        return self.policies or (() if self.policy is None else (self.policy,))

    @property
    def given(self) -> Given:
        """Give what is to be imagined."""
        return Given(
            {one.name: _terms(PolicyTerms, one) for one in self._policies},
            no_others=self.policies is not None,
            calendars={one.name: _terms(CalendarTerms, one) for one in self.calendars},
        )

    def named(self) -> tuple[str, ...]:
        """Say what is to be imagined, for headings."""
        policies = [f"policy {one.name}" for one in self._policies]
        if self.policies is not None:
            policies[-1] += ", and no other"
        return (*policies, *(f"calendar {one.name}" for one in self.calendars))

    def as_of_or(self, now: datetime) -> datetime:
        """Give the instant as of which outcomes are told."""
        return self.as_of or now


def _terms(kind: type[Terms], given: BaseModel) -> Terms:
    """Give the terms alone, as they are adopted."""
    return kind.model_validate({name: getattr(given, name) for name in kind.model_fields})

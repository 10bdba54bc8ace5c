"""The people whom the desk serves: registered, reached, ranked in tiers and grouped by organisation."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self

from domain.customer_events import (
    ContactChanged,
    CustomerEvent,
    JoinedOrganisation,
    Registered,
    Tier,
    TierChanged,
)
from domain.event import Aggregate, Rejected, known

if TYPE_CHECKING:
    from uuid import UUID

    from domain.event import Act


class ContactKnown(Rejected):
    """An e-mail address or phone number belongs to one customer; the refusal names the one that has it."""

    problem = "contact-known"

    def __init__(self, kind: Literal["email", "phone"], customer_id: UUID) -> None:
        super().__init__(f"another customer has this {kind}: {customer_id}", kind=kind, customer_id=str(customer_id))


class Clear(Enum):
    """Says that a contact detail is to be emptied, where None says that it stays."""

    CLEAR = "clear"


CLEAR: Final = Clear.CLEAR


class Customer(Aggregate):
    """A person whom the desk serves."""

    TOPIC: ClassVar[str] = "customer"
    Event = CustomerEvent

    def __init__(self) -> None:
        """Start from nothing known."""
        self.name: str = ""
        self.email: str | None = None
        self.phone: str | None = None
        self.language: str | None = None
        self.tier: Tier = Tier.STANDARD
        self.organisation: str | None = None
        self.foreign_id: str | None = None

    @classmethod
    def register(
        cls,
        *,
        customer_id: UUID,
        name: str,
        email: str | None = None,
        phone: str | None = None,
        language: str | None = None,
        tier: Tier = Tier.STANDARD,
        organisation: str | None = None,
        foreign_id: str | None = None,
        act: Act,
    ) -> Self:
        """Make a customer known. Whether e-mail and phone are free is for the log to say, not for this."""
        return cls.start(
            Registered,
            aggregate_id=customer_id,
            act=act,
            name=name,
            email=email,
            phone=phone,
            language=language,
            tier=tier,
            organisation=organisation,
            foreign_id=foreign_id,
        )

    def change_contact(
        self,
        *,
        name: str | None = None,
        email: str | Clear | None = None,
        phone: str | Clear | None = None,
        language: str | Clear | None = None,
        act: Act,
    ) -> None:
        """Change the details that are given; None leaves one as it is, CLEAR empties it."""
        before = {"name": self.name, "email": self.email, "phone": self.phone, "language": self.language}
        wanted = {"name": name, "email": email, "phone": phone, "language": language}
        after = {detail: _after(before[detail], value) for detail, value in wanted.items()}
        changed = tuple(detail for detail, value in after.items() if value != before[detail])
        if changed:
            stays = {detail: known(value) for detail, value in after.items() if detail not in changed}
            self.record(
                ContactChanged,
                act,
                changed=changed,
                # A customer always has a name, be it an erased one.
                **{**after, **stays, "name": after["name"]},
                **{f"previous_{detail}": known(value) for detail, value in before.items()},
            )

    def change_tier(self, *, tier: Tier, act: Act) -> None:
        """Rank the customer."""
        if tier is not self.tier:
            self.record(TierChanged, act, tier=tier, previous_tier=self.tier)

    def join_organisation(self, *, organisation: str, act: Act) -> None:
        """Put the customer into an organisation, out of any other."""
        if organisation != self.organisation:
            self.record(JoinedOrganisation, act, organisation=organisation, previous_organisation=self.organisation)


def _after(current: str | None, wanted: str | Clear | None) -> str | None:
    match wanted:
        case None:
            return current
        case Clear():
            return None
        case _:
            return wanted

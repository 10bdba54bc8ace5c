"""What can happen to a customer. Stored for good: a changed shape needs a new `class_version` and an upcaster."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ClassVar

from domain.event import Change, Created, Event, Personal

if TYPE_CHECKING:
    from domain.customer import Customer


class Tier(StrEnum):
    """How much a customer is owed."""

    STANDARD = "standard"
    SILVER = "silver"
    GOLD = "gold"
    VIP = "vip"


OwnText = Annotated[str, Personal("originator_id")]
OwnTextOrNone = Annotated[str | None, Personal("originator_id")]


class CustomerEvent(Event):
    """Base of what happens to a customer; its personal values are the customer's own."""


class Registered(CustomerEvent, Created):
    """A customer became known. Even the `foreign_id` may be a name, so it is personal too."""

    TOPIC: ClassVar[str] = "customer.registered"

    name: OwnText
    email: OwnTextOrNone
    phone: OwnTextOrNone
    language: str | None
    tier: Tier
    organisation: str | None
    foreign_id: OwnTextOrNone

    def apply(self, customer: Customer) -> None:
        """Take the first values."""
        customer.name = self.name
        customer.email = self.email
        customer.phone = self.phone
        customer.language = self.language
        customer.tier = self.tier
        customer.organisation = self.organisation
        customer.foreign_id = self.foreign_id


class ContactChanged(CustomerEvent):
    """Name, e-mail, phone or language changed; all four stand here as they are afterwards.

    `changed` names those that did, since sealed values cannot be compared.
    """

    TOPIC: ClassVar[str] = "customer.contact_changed"
    CIRCUMSTANCES: ClassVar[frozenset[str]] = CustomerEvent.CIRCUMSTANCES | {"changed"}

    changed: tuple[str, ...]

    name: OwnText
    previous_name: OwnTextOrNone
    email: OwnTextOrNone
    previous_email: OwnTextOrNone
    phone: OwnTextOrNone
    previous_phone: OwnTextOrNone
    language: str | None
    previous_language: str | None

    def changes(self) -> tuple[Change, ...]:
        """List what is named as changed."""
        return tuple(change for change in super().changes() if change.field in self.changed)

    def apply(self, customer: Customer) -> None:
        """Take the four."""
        customer.name = self.name
        customer.email = self.email
        customer.phone = self.phone
        customer.language = self.language


class TierChanged(CustomerEvent):
    """The customer is owed more, or less, than before."""

    TOPIC: ClassVar[str] = "customer.tier_changed"

    tier: Tier
    previous_tier: Tier

    def apply(self, customer: Customer) -> None:
        """Take the tier."""
        customer.tier = self.tier


class JoinedOrganisation(CustomerEvent):
    """The customer now belongs to an organisation."""

    TOPIC: ClassVar[str] = "customer.joined_organisation"

    organisation: str
    previous_organisation: str | None

    def apply(self, customer: Customer) -> None:
        """Take the organisation."""
        customer.organisation = self.organisation

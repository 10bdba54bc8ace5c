"""The commands of a customer; an e-mail address or phone number belongs to one customer at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import StringConstraints

from commands.execution import Decision, command
from commands.request import Command
from commands.tickets import ForeignId
from domain.contact import EmailAddress, PhoneNumber, normalise_email, normalise_phone
from domain.customer import CLEAR, Customer
from domain.customer_events import Tier
from domain.text import Label, Text

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

Language = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)]
"""A language tag (BCP 47), such as zh-CN."""

EMAIL: Final = "email"
PHONE: Final = "phone"
_NORMAL: dict[str, Callable[[str], str]] = {EMAIL: normalise_email, PHONE: normalise_phone}


class CustomerCommand(Command):
    """A command to a customer; the reason, where one is given, is kept with what happened."""

    reason: Text | None = None


class RegisterCustomer(CustomerCommand):
    """Register a customer; a known e-mail address or phone number is refused, naming who has it."""

    name: Label
    email: EmailAddress | None = None
    phone: PhoneNumber | None = None
    language: Language | None = None
    tier: Tier = Tier.STANDARD
    organisation: Label | None = None
    foreign_id: ForeignId | None = None


class ChangeContact(CustomerCommand):
    """Change contact details; one that is left out stays, and null empties it."""

    name: Label | None = None
    email: EmailAddress | None = None
    phone: PhoneNumber | None = None
    language: Language | None = None


class ChangeTier(CustomerCommand):
    """Change the customer's tier."""

    tier: Tier


class JoinOrganisation(CustomerCommand):
    """Put the customer into an organisation."""

    organisation: Label


@command("customer", "register", creates=True)
async def register(decision: Decision, customer_id: UUID, command: RegisterCustomer) -> Customer:  # noqa: D103
    customer = Customer.register(
        customer_id=customer_id,
        name=command.name,
        email=command.email,
        phone=command.phone,
        language=command.language,
        tier=command.tier,
        organisation=command.organisation,
        foreign_id=command.foreign_id,
        act=decision.act,
    )
    _claim_changes(decision, customer, None, None)
    return customer


@command("customer", "change-contact")
async def change_contact(decision: Decision, customer: Customer, command: ChangeContact) -> None:  # noqa: D103
    email, phone = customer.email, customer.phone
    given = command.model_fields_set
    customer.change_contact(
        name=command.name,
        email=CLEAR if "email" in given and command.email is None else command.email,
        phone=CLEAR if "phone" in given and command.phone is None else command.phone,
        language=CLEAR if "language" in given and command.language is None else command.language,
        act=decision.act,
    )
    _claim_changes(decision, customer, email, phone)


@command("customer", "change-tier")
async def change_tier(decision: Decision, customer: Customer, command: ChangeTier) -> None:  # noqa: D103
    customer.change_tier(tier=command.tier, act=decision.act)


@command("customer", "join-organisation")
async def join_organisation(decision: Decision, customer: Customer, command: JoinOrganisation) -> None:  # noqa: D103
    customer.join_organisation(organisation=command.organisation, act=decision.act)


def normal_contact(kind: str, value: str) -> str:
    """Give the form in which equal addresses or numbers are equal. Raises ValueError where it is none."""
    return _NORMAL[kind](value)


def _claim_changes(decision: Decision, customer: Customer, email: str | None, phone: str | None) -> None:
    for kind, before, after in ((EMAIL, email, customer.email), (PHONE, phone, customer.phone)):
        old = None if before is None else normal_contact(kind, before)
        new = None if after is None else normal_contact(kind, after)
        if old == new:
            continue
        if old is not None:
            decision.claim(kind, old, customer.id, release=True)
        if new is not None:
            decision.claim(kind, new, customer.id)

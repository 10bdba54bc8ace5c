"""Reading everything of one customer on one screen: who it is, which tickets there are, and what happened."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import AwareDatetime, BaseModel
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response  # noqa: TC002 - FastAPI reads the annotation at run time

from api.access import STAFF, view_router
from api.people_routes import LISTING_PROBLEMS, CustomerTold
from api.ticket_routes import Caller  # noqa: TC001 - FastAPI reads the annotation at run time
from api.view_pages import After, CursorText, Limit, reading_desk, true_of, wait_if_asked
from domain.customer import Customer
from projections import customer_history, directory, ticket_queue
from projections.customer_history import HistoryFilter, Kind
from projections.ticket_queue import QueueFilter
from replay.history import SYSTEM_NAME, entry_of, mentioned_in
from replay.terminal import entry_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from projections.customer_history import Happening
    from projections.ticket_queue import QueueEntry

router = view_router("customer.history", roles=STAFF)

_MOST_TICKETS = 50


class TicketNamed(BaseModel):
    """What a ticket is called and how it stands, as the queue has it."""

    number: int
    subject: str | None
    status: str
    priority: str
    requester_id: UUID


class HappeningTold(BaseModel):
    """An event as a ticket's history tells it, with the ticket it is of; of the customer alone that is null.

    Where the event cannot be read, `entry` is null and `unreadable` says why.
    """

    position: int
    occurred_at: AwareDatetime
    ticket_id: UUID | None
    kind: Kind
    entry: dict[str, Any] | None
    unreadable: str | None


class HistoryPage(BaseModel):
    """A page of a customer's history, newest first, true of `position`.

    `tickets_by_status` counts all tickets that are the customer's now; `tickets` names those on the page, `names` people
    and teams.
    """

    customer: CustomerTold
    tickets_by_status: dict[str, int]
    items: list[HappeningTold]
    tickets: dict[UUID, TicketNamed]
    names: dict[UUID, str]
    position: int
    next_cursor: str | None


@router.get(
    "/customers/{customer}/history",
    operation_id="customer.history",
    tags=["customers"],
    summary="Read everything of a customer across tickets",
    response_model=None,
    responses={**LISTING_PROBLEMS, 200: {"model": HistoryPage}},
)
async def read_customer_history(
    *,
    request: Request,
    customer: str,
    credential: Caller,
    kinds: Annotated[list[Kind] | None, Query(alias="kind", max_length=9, description="Only these.")] = None,
    tickets: Annotated[
        list[str] | None, Query(alias="ticket", max_length=_MOST_TICKETS, description="Only of these tickets.")
    ] = None,
    occurred_from: AwareDatetime | None = None,
    occurred_before: AwareDatetime | None = None,
    limit: Limit = 50,
    cursor: CursorText = None,
    after: After = None,
) -> Response:
    """Tell what happened on the tickets that a customer requested, wrote on or has copies of, and to the customer.

    A ticket that became somebody else's stays here up to that moment, and is there from it on.
    """
    desk = await reading_desk(request, credential)
    about = await desk.load(Customer, await desk.resolve("customer", customer))
    await wait_if_asked(request, desk, customer_history.VIEW, after)
    which = HistoryFilter(
        customer=about.id,
        tickets=None if tickets is None else [await desk.resolve("ticket", one) for one in tickets],
        kinds=kinds,
        occurred_from=occurred_from,
        occurred_before=occurred_before,
    )
    page = await customer_history.list_history(desk.workspace, which, limit=limit, cursor=cursor)
    read = [item.event for item in page.items if item.event is not None]
    called, named, by_status = await asyncio.gather(
        directory.names(desk.workspace, mentioned_in(read) | {about.id}),
        ticket_queue.find_tickets(desk.workspace, {one for item in page.items if (one := item.ticket_id)}),
        ticket_queue.count_tickets(desk.workspace, QueueFilter(customer=about.id)),
    )
    names = SYSTEM_NAME | {str(one): name for one, name in called.items()}
    content = {
        "customer": CustomerTold.model_validate(about, from_attributes=True).model_dump(mode="json"),
        "tickets_by_status": by_status.counts,
        "items": [_told(item, names) for item in page.items],
        "tickets": {str(one): _named(entry) for one, entry in named.items()},
        "names": names,
        "position": page.position,
        "next_cursor": page.cursor,
    }
    return await true_of(desk, page.position, content)


def _told(item: Happening, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "position": item.position,
        "occurred_at": item.occurred_at,
        "ticket_id": item.ticket_id,
        "kind": item.kind,
        "entry": None if item.event is None else entry_json(entry_of(item.event, names)),
        "unreadable": item.unreadable,
    }


def _named(entry: QueueEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in TicketNamed.model_fields}

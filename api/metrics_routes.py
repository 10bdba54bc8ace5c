"""What a monitoring system asks for, at intervals, with a credential of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends
from prometheus_client.core import GaugeMetricFamily
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response

from api.access import GuardedRoute, caller_of
from projections.bookkeeping import FAILED, view_status
from projections.registry import VIEWS
from storage import metrics
from storage.credentials import Credential  # noqa: TC001 - FastAPI reads the annotation at run time

if TYPE_CHECKING:
    from prometheus_client import Metric

    from commands.desk import Desk
    from projections.bookkeeping import ViewStatus

router = APIRouter(route_class=GuardedRoute, tags=["about"])


@router.get(
    "/metrics",
    operation_id="metrics.read",
    summary="Read the metrics",
    response_model=None,
    responses={200: {"description": "The text format of Prometheus", "content": {"text/plain": {}}}},
)
async def read_metrics(request: Request, credential: Annotated[Credential, Depends(caller_of)]) -> Response:
    """Give what all processes of this server counted for the credential's workspace, and how its views stand."""
    desk: Desk = await request.app.state.desks.of(credential.workspace)
    metrics.refresh(request.app.state.database)
    standing = of_views(credential.workspace, await view_status(desk.workspace, VIEWS))
    # In a thread: with several processes this reads files of each.
    content = await asyncio.to_thread(metrics.exposition, credential.workspace, standing)
    return Response(content, media_type=metrics.CONTENT_TYPE)


def of_views(workspace: str, found: list[ViewStatus]) -> list[Metric]:
    """Say how far the log and its views have come."""
    labels = ("workspace", "view")
    head = GaugeMetricFamily("desk_log_position", "The last position of the log", labels=("workspace",))
    events = GaugeMetricFamily("desk_view_lag_events", "Events that a view has not taken in", labels=labels)
    seconds = GaugeMetricFamily(
        "desk_view_lag_seconds", "Age of the oldest event that a view has not taken in", labels=labels
    )
    stopped = GaugeMetricFamily("desk_view_stopped", "1 where a view has stopped at an event", labels=labels)
    head.add_metric((workspace,), max((status.head for status in found), default=0))
    for status in found:
        place = (workspace, status.name)
        events.add_metric(place, status.lag_events)
        seconds.add_metric(place, status.lag_seconds)
        stopped.add_metric(place, status.state == FAILED)
    return [head, events, seconds, stopped]

"""What a monitoring system asks for, at intervals, with a credential of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends
from prometheus_client.core import GaugeMetricFamily
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response

from api.access import GuardedRoute, caller_of
from api.timer_standing import TimerStanding
from projections.bookkeeping import FAILED, view_status
from projections.consumer_register import consumer_status
from projections.registry import VIEWS
from projections.skipping import skips
from storage import metrics
from storage.credentials import Credential  # noqa: TC001 - FastAPI reads the annotation at run time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import Metric

    from commands.desk import Desk
    from projections.bookkeeping import ViewStatus
    from projections.consumer_register import ConsumerStatus
    from projections.skipping import Skip

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
    standing = of_views(credential.workspace, await view_status(desk.workspace, VIEWS), await skips(desk.workspace))
    standing += of_consumers(credential.workspace, await consumer_status(desk.workspace))
    standing += of_timer(credential.workspace, await TimerStanding.of(desk.workspace))
    # In a thread: with several processes this reads files of each.
    content = await asyncio.to_thread(metrics.exposition, credential.workspace, standing)
    return Response(content, media_type=metrics.CONTENT_TYPE)


def of_views(workspace: str, found: Sequence[ViewStatus], passed_over: Sequence[Skip]) -> list[Metric]:
    """Say how far the log and its views have come, what stopped them, and how much they passed over."""
    labels = ("workspace", "view")
    head = GaugeMetricFamily("desk_log_position", "The last position of the log", labels=("workspace",))
    events = GaugeMetricFamily("desk_view_lag_events", "Events that a view has not taken in", labels=labels)
    seconds = GaugeMetricFamily(
        "desk_view_lag_seconds", "Age of the oldest event that a view has not taken in", labels=labels
    )
    stopped = GaugeMetricFamily("desk_view_stopped", "1 where a view has stopped at an event", labels=labels)
    stopped_at = GaugeMetricFamily(
        "desk_view_stopped_position", "The event that a view has stopped at, where it has", labels=labels
    )
    since = GaugeMetricFamily(
        "desk_view_stopped_timestamp_seconds", "Since when a view has stopped, where it has", labels=labels
    )
    skipped = GaugeMetricFamily(
        "desk_view_skipped_events", "Events that a view was ever told to pass over", labels=labels
    )
    head.add_metric((workspace,), max((status.head for status in found), default=0))
    for status in found:
        place = (workspace, status.name)
        events.add_metric(place, status.lag_events)
        seconds.add_metric(place, status.lag_seconds)
        stopped.add_metric(place, status.state == FAILED)
        if status.failure is not None:
            stopped_at.add_metric(place, status.failure.position)
            since.add_metric(place, status.failure.failed_at.timestamp())
        skipped.add_metric(place, sum(one.view == status.name for one in passed_over))
    return [head, events, seconds, stopped, stopped_at, since, skipped]


def of_consumers(workspace: str, found: Sequence[ConsumerStatus]) -> list[Metric]:
    """Say how far consumers have handed the log on, and which have stopped."""
    labels = ("workspace", "consumer")
    events = GaugeMetricFamily("desk_consumer_lag_events", "Events that a consumer was not handed", labels=labels)
    seconds = GaugeMetricFamily(
        "desk_consumer_lag_seconds", "Age of the oldest event that a consumer was not handed", labels=labels
    )
    attempts = GaugeMetricFamily(
        "desk_consumer_attempts", "How often the event that is next was tried in vain", labels=labels
    )
    stopped = GaugeMetricFamily("desk_consumer_stopped", "1 where a consumer has stopped at an event", labels=labels)
    for status in found:
        place = (workspace, status.name)
        events.add_metric(place, status.lag_events)
        seconds.add_metric(place, status.lag_seconds)
        attempts.add_metric(place, status.attempts)
        stopped.add_metric(place, status.state == FAILED)
    return [events, seconds, attempts, stopped]


def of_timer(workspace: str, found: TimerStanding) -> list[Metric]:
    """Say how late the timer is, and how many open tickets what was adopted has yet to be carried to."""
    seconds = GaugeMetricFamily(
        "desk_timer_lag_seconds", "How long ago fell due what the timer has not recorded", labels=("workspace",)
    )
    left = GaugeMetricFamily(
        "desk_timer_adoption_tickets_left",
        "Open tickets to which what was adopted has yet to be carried",
        labels=("workspace",),
    )
    behind = GaugeMetricFamily(
        "desk_timer_adoptions_waiting",
        "Versions of calendars and policies that have not been carried to all open tickets",
        labels=("workspace",),
    )
    state = found.rollout
    seconds.add_metric((workspace,), found.lag_seconds)
    left.add_metric((workspace,), 0 if state.upto is None else max(state.total - state.looked_at, 0))
    behind.add_metric((workspace,), max(found.adopted - state.done_upto, 0))
    return [seconds, left, behind]

"""A view that stopped says so wherever somebody may look, and so does what it was told to pass over."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from domain.event import Role
from projections.registry import BY_NAME
from projections.runner import Runner
from projections.skipping import skip
from tests.api.test_metrics import scrape
from tests.projections.test_runner import failing_at

if TYPE_CHECKING:
    from tests.api.conftest import DeskOverHttp

QUEUE = BY_NAME["ticket_queue"]
PLACE = {"workspace": "alpha", "view": "ticket_queue"}


async def test_a_view_that_stopped_is_named_over_http_in_the_metrics_and_by_readiness(desk: DeskOverHttp) -> None:
    opened = await desk.open()
    runner = Runner(desk.database, [failing_at(QUEUE, opened["position"])])
    await runner.catch_up(await desk.database.workspace("alpha"))

    (told,) = [view for view in (await desk.get("/views")).json()["views"] if view["name"] == "ticket_queue"]
    assert (told["state"], told["failure"]["position"]) == ("failed", opened["position"])
    assert told["failure"]["topic"] == "ticket.opened"
    assert "I will not have this" in told["failure"]["error"]
    failed_at = datetime.fromisoformat(told["failure"]["failed_at"])
    metrics = await scrape(desk)
    assert metrics("desk_view_stopped", **PLACE) == 1
    assert metrics("desk_view_stopped_position", **PLACE) == opened["position"]
    assert abs(metrics("desk_view_stopped_timestamp_seconds", **PLACE) - failed_at.timestamp()) < 0.001
    ready = await desk.get("/health/ready", role=None)
    assert ready.status_code == 200  # commands and every other view go on
    (named,) = ready.json()["stopped_views"]
    assert (named["view"], named["position"]) == ("ticket_queue", opened["position"])
    assert datetime.fromisoformat(named["failed_at"]) == failed_at


async def test_what_a_view_passes_over_is_told_over_http_and_in_the_metrics(desk: DeskOverHttp) -> None:
    opened = await desk.open()
    alpha = await desk.database.workspace("alpha")
    runner = Runner(desk.database, [failing_at(QUEUE, opened["position"])])
    await runner.catch_up(alpha)
    await skip(alpha, QUEUE, position=opened["position"], reason="Never opened.", by="ann@desk")
    await desk.open()
    await runner.catch_up(alpha)

    views = (await desk.get("/views")).json()
    assert all(view["failure"] is None for view in views["views"])
    (told,) = views["skips"]
    assert {name: told[name] for name in ("view", "version", "position", "topic", "reason", "skipped_by")} == {
        "view": "ticket_queue",
        "version": QUEUE.version,
        "position": opened["position"],
        "topic": "ticket.opened",
        "reason": "Never opened.",
        "skipped_by": "ann@desk",
    }
    assert "I will not have this" in told["error"]
    metrics = await scrape(desk)
    assert metrics("desk_view_skipped_events", **PLACE) == 1
    assert metrics("desk_view_skipped_events", workspace="alpha", view="sla_clock") == 0
    assert (await desk.get("/health/ready", role=None)).json()["stopped_views"] == []
    queue = (await desk.get("/queue", role=Role.SUPERVISOR)).json()
    assert opened["id"] not in [item["ticket_id"] for item in queue["items"]]

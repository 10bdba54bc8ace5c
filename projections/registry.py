"""The views there are. A new one is its own module and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from projections import (
    agent_workload,
    audit_trail,
    customer_history,
    directory,
    queue_history,
    sla_clock,
    ticket_queue,
    volume_by_hour,
)

if TYPE_CHECKING:
    from projections.view import View

VIEWS: Final[tuple[View, ...]] = (
    ticket_queue.VIEW,
    sla_clock.VIEW,
    audit_trail.VIEW,
    directory.VIEW,
    agent_workload.VIEW,
    volume_by_hour.VIEW,
    customer_history.VIEW,
    queue_history.VIEW,
)

BY_NAME: Final[dict[str, View]] = {view.name: view for view in VIEWS}

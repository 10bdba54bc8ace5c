"""Queue history: every state each ticket was in, for the queue as of any moment."""

from __future__ import annotations

from typing import Final

from projections import ticket_queue
from projections.past import Past

PAST: Final = Past(
    name="queue_history",
    view=ticket_queue.VIEW,
    asked=(
        "status",
        "priority",
        "urgency_rank",
        "type",
        "category",
        "tags",
        "team_id",
        "agent_id",
        "requester_id",
        "updated_at",
        "due_at",
    ),
    fixed=("ticket_id", "number", "channel", "opened_at"),
    changed="updated_at",
    settled_by="status",
    settled=("solved", "closed"),
    settled_indexes=(
        "updated_at, number",
        "team_id, updated_at, number",
        "agent_id, updated_at, number",
        "requester_id, updated_at",
        "coalesce(due_at, 'infinity'), number",
        "opened_at, number",
        "urgency_rank, opened_at, number",
        "number",
        "since",
    ),
    moving_index="team_id, status",
    step=ticket_queue.step,
    finish=ticket_queue.settled,
)

VIEW: Final = PAST.history

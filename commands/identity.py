"""Where a stream's id comes from when the thing has an identity elsewhere."""

from __future__ import annotations

from typing import Final, Literal
from uuid import UUID, uuid5

StreamKind = Literal["ticket", "customer", "agent", "team", "service_levels"]

FOREIGN_STREAMS: Final = UUID("5b0c2c1e-6f0b-5d2e-9a57-0f1c6f4f7d31")
"""The namespace of our name-based ids. Never changes: it is how a second import finds what the first one made."""


def stream_id_for(kind: StreamKind, foreign_id: str) -> UUID:
    """Give the stream of the thing that another system knows as `foreign_id`, such as "servicenow:INC0000045".

    Raises UnicodeEncodeError where the id holds a lone surrogate.
    """
    return uuid5(FOREIGN_STREAMS, f"{kind}/{foreign_id}")

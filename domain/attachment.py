"""A file that came with a message; its bytes are kept elsewhere and its name is personal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from domain.event import Rejected
from domain.ticket_refusals import require_at_most

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_BYTES = 25 * 1024 * 1024
"""The largest attachment taken."""
MOST_IN_A_MESSAGE = 50


class Attachment(BaseModel):
    """What stays known of a file for good. `sha256` is lower-case hexadecimal, `size` in bytes.

    Names stand beside, in the same order, in the personal field `attachment_names` of the event.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    content_type: str
    size: int
    sha256: str


class NamedAttachment(NamedTuple):
    """A file as it is handed over, with its name."""

    name: str
    attachment: Attachment


class AttachmentTooLarge(Rejected):
    """Attachments have a largest size."""

    problem = "attachment-too-large"

    def __init__(self, attachment_id: UUID, size: int, most: int) -> None:
        super().__init__(
            f"attachment {attachment_id} has {size} bytes; at most {most} are taken",
            attachment_id=str(attachment_id),
            size=size,
            most=most,
        )


def event_fields(attachments: Sequence[NamedAttachment]) -> dict[str, Any]:
    """Split files into the two fields that events have for them. Raises AttachmentTooLarge, TooMany."""
    require_at_most(MOST_IN_A_MESSAGE, attachments, "attachments to a message")
    for _, attachment in attachments:
        if attachment.size > MOST_BYTES:
            raise AttachmentTooLarge(attachment.id, attachment.size, MOST_BYTES)
    return {
        "attachments": tuple(attachment for _, attachment in attachments),
        "attachment_names": tuple(name for name, _ in attachments) or None,
    }

"""A file that came with a message; its bytes are kept elsewhere and its name is personal."""

from __future__ import annotations

from uuid import UUID  # noqa: TC003 - pydantic reads the annotation at run time

from pydantic import BaseModel, ConfigDict

MOST_BYTES = 25 * 1024 * 1024
"""The largest attachment taken."""


class Attachment(BaseModel):
    """What stays known of a file for good. `sha256` is lower-case hexadecimal, `size` in bytes.

    Names stand beside, in the same order, in the personal field `attachment_names` of the event.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    content_type: str
    size: int
    sha256: str

"""Reading what a caller sends: size and type are checked before and while it arrives."""

from __future__ import annotations

import email.message
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from api.headers import stated
from api.problems import BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from starlette.requests import Request

LARGEST_JSON = 1024 * 1024
"""Bytes of a command: many times the longest text a ticket takes."""
LARGEST_ATTACHMENT = 25 * 1024 * 1024
"""Bytes of one attachment."""
LONGEST_LENGTH = 12  # digits of a Content-Length that is still a size


async def json_body(request: Request) -> bytes:
    """Give the bytes of a JSON body; an empty body is an empty object.

    Raises Problem body-too-large, unsupported-media-type.
    """
    body = await _bounded(request, LARGEST_JSON)
    if not body:
        return b"{}"
    media_type, charset = content_type(request)
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        said = media_type or "nothing"
        raise Problem(UNSUPPORTED_MEDIA_TYPE, f"The body is said to be {said}; application/json is needed.")
    if charset not in {None, "utf-8", "utf8", "us-ascii"}:
        raise Problem(UNSUPPORTED_MEDIA_TYPE, f"JSON is written in UTF-8, not in {charset}.")
    return body


async def attachment_body(request: Request) -> bytes:
    """Give the bytes of an attachment. Raises Problem body-too-large."""
    return await _bounded(request, LARGEST_ATTACHMENT)


def content_type(request: Request) -> tuple[str, str | None]:
    """Give the media type (empty where there is none) and charset a request states, in lower case."""
    said = (stated(request.scope, b"content-type") or [""])[0]
    if not said:
        return "", None
    if said.lower() == "application/json":
        return "application/json", None
    message = email.message.Message()
    message["content-type"] = said
    charset = message.get_param("charset")
    return message.get_content_type(), charset.lower() if isinstance(charset, str) else None


async def _bounded(request: Request, limit: int) -> bytes:
    declared = (stated(request.scope, b"content-length") or [""])[0]
    if declared.isascii() and declared.isdigit() and (len(declared) > LONGEST_LENGTH or int(declared) > limit):
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks) if len(chunks) > 1 else chunks[0]


def _too_large(limit: int) -> Problem:
    return Problem(BODY_TOO_LARGE, f"At most {limit:,} bytes are taken here.", limit=limit)

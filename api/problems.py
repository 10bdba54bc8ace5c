"""What a caller is told when the desk does not do as asked: RFC 9457 problem documents, and every status code."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import psycopg
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from commands.desk import NotFound
from commands.request import Forbidden, ScopeMissing, StaleVersion
from domain.event import Rejected
from projections.bookkeeping import ViewsNotReady
from projections.listing import CursorExpired, CursorInvalid
from projections.waiting import NotReached
from replay.as_of import BeforeItExisted, NoSuchMoment
from replay.past_listing import NotYetKept
from replay.stream import NoSuchStream
from storage.append import EventTooLarge, KeyReused, LogBusy, LogUnavailable
from storage.codec import BrokenStream, NewerShape, UndecodableState, UnfitEvent, UnknownTopic, UnreadableEvent
from storage.database import DatabaseUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

MEDIA_TYPE = "application/problem+json"
MOST_FIELDS_NAMED = 20  # a body of a megabyte can be wrong in a hundred thousand places
LONGEST_POINTER = 200
_WORD: Final = re.compile(r"[a-z]+(?![\w:]|\.\w)")
SOON = {"Retry-After": "1"}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its stable name, its status, and what it means to the person who meets it."""

    name: str
    status: HTTPStatus
    title: str
    explanation: str

    @property
    def type(self) -> str:
        """The reference that identifies this kind in a problem document; it can be opened and read."""
        return f"/problems/{self.name}"


KINDS: Final[dict[str, Kind]] = {}
"""The kinds that are not refusals of the domain, by name."""


def _kind(name: str, status: HTTPStatus, title: str, explanation: str) -> Kind:
    kind = KINDS[name] = Kind(name, status, title, explanation)
    return kind


MALFORMED_REQUEST: Final = _kind(
    "malformed-request",
    HTTPStatus.BAD_REQUEST,
    "The request cannot be read",
    "A header, a parameter or the way the request is written is not understood. `detail` says which. Nothing was "
    "changed.",
)
UNAUTHENTICATED: Final = _kind(
    "unauthenticated",
    HTTPStatus.UNAUTHORIZED,
    "No valid credential",
    "Send a credential of this desk as `Authorization: Bearer desk_…`. It may be missing, mistyped, revoked or "
    "expired. `desk credential issue` makes a new one.",
)
FORBIDDEN: Final = _kind(
    "forbidden",
    HTTPStatus.FORBIDDEN,
    "The credential's role may not do this",
    "The credential is valid, but its `role` may not carry out `command`. Use a credential of another role.",
)
SCOPE_MISSING: Final = _kind(
    "scope-missing",
    HTTPStatus.FORBIDDEN,
    "The credential lacks a scope",
    "What was asked is only for credentials with `scope`, as `desk credential issue --scope` gives it: by `backdate` one "
    "may say when something occurred.",
)
NOT_FOUND: Final = _kind(
    "not-found",
    HTTPStatus.NOT_FOUND,
    "There is no such thing",
    "The address leads nowhere, or names a ticket, person or team that does not exist in your workspace or that "
    "you may not see.",
)
NO_SUCH_MOMENT: Final = _kind(
    "no-such-moment",
    HTTPStatus.NOT_FOUND,
    "It was not there then",
    "The version, instant or position asked for has not come yet, or lies before the thing existed.",
)
METHOD_NOT_ALLOWED: Final = _kind(
    "method-not-allowed",
    HTTPStatus.METHOD_NOT_ALLOWED,
    "The address does not take this method",
    "The `Allow` header of the response lists the methods it takes.",
)
REFUSED: Final = _kind(
    "refused",
    HTTPStatus.CONFLICT,
    "A rule of the desk forbids this",
    "The request was understood, and a rule of the desk forbids it as things stand. Nothing was recorded.",
)
LOG_EPOCH_CHANGED: Final = _kind(
    "log-epoch-changed",
    HTTPStatus.CONFLICT,
    "The position belongs to an earlier log",
    "The log was restored, or a failover lost its last events, since this position was handed out, so that the position "
    "may mean another event now. Start again without it: read again what you decide on, and repeat with the same "
    "`Idempotency-Key` a command whose effect is gone.",
)
POSITION_NOT_IN_LOG: Final = _kind(
    "position-not-in-log",
    HTTPStatus.CONFLICT,
    "The log does not have that position",
    "`?after=` names a position beyond the end of the log (`head`). It was made up, or belongs to another log, or "
    "events were lost. Start again without it.",
)
CURSOR_EXPIRED: Final = _kind(
    "cursor-expired",
    HTTPStatus.GONE,
    "The page cursor is too old",
    "A cursor pins the list to the moment its first page was read, and that moment is no longer kept. Start again "
    "at the first page.",
)
STALE_VERSION: Final = _kind(
    "stale-version",
    HTTPStatus.PRECONDITION_FAILED,
    "It has changed since you read it",
    "`If-Match` named a version that is not the current one. Read it again, decide again, and send the version "
    "you then see; `current_version` is the one at the time of the refusal.",
)
BODY_TOO_LARGE: Final = _kind(
    "body-too-large",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "The body is too large",
    "Commands are at most 1 MiB of JSON, attachments at most 25 MB. `limit` is the limit in bytes.",
)
EVENT_TOO_LARGE: Final = _kind(
    "event-too-large",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "What it would record is too large",
    "Carrying the command out would record an event of `size` bytes, and this desk takes `limit` bytes (the setting "
    "`DESK_LARGEST_EVENT`). Nothing was recorded. Say it in several smaller commands, or attach long texts as files.",
)
UNSUPPORTED_MEDIA_TYPE: Final = _kind(
    "unsupported-media-type",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "The body is of a type that is not read here",
    "Send `Content-Type: application/json` with UTF-8 text.",
)
INVALID_INPUT: Final = _kind(
    "invalid-input",
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "Some values are not valid",
    "`errors` lists each value that is wrong: `pointer` is a JSON pointer into the body, `parameter` names a path, "
    "query or header value. Nothing was recorded.",
)
IDEMPOTENCY_KEY_REUSED: Final = _kind(
    "idempotency-key-reused",
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "The idempotency key was used for something else",
    "The same `Idempotency-Key` came with another command or body. A key stands for one command; use a new one.",
)
VIEW_BEHIND: Final = _kind(
    "view-behind",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "The view has not got that far yet",
    "`?after=` asked for a view that includes a given position, and it was not reached in time; `reached` is how "
    "far the view is. Ask again in a moment. If it stays behind, `GET /views` tells whether it has stopped.",
)
DATABASE_UNAVAILABLE: Final = _kind(
    "database-unavailable",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "The database does not answer",
    "Whether a command that met this was recorded is unknown: repeat it with the same `Idempotency-Key`.",
)
BUSY: Final = _kind(
    "busy",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Too much is waiting",
    "More commands wait for the log than it can take at the moment. Nothing was recorded; try again shortly.",
)
UNREADABLE_HISTORY: Final = _kind(
    "unreadable-history",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "Its record cannot be read",
    "One event of this ticket, customer, agent or team cannot be read, so nothing is decided or shown on the strength "
    "of it. Nothing was recorded, and repeating the request does not help; everything else goes on. `stream`, "
    "`version`, `position` and `topic` say which event. `reason` says why: `missing_event` (events before it are "
    "missing, `expected` is the first), `unknown_event` (of a type that this release does not know), `newer_event` "
    "(in a shape that only a newer release knows), `undecodable_event` (not what its type should look like) or "
    "`unfit_event` (it cannot follow the events before it). Give these values to whoever operates the desk. The "
    "history of a ticket tells what can still be read, and as-of reads work up to the event before. A customer is told "
    "none of this but the kind of problem.",
)
INTERNAL_ERROR: Final = _kind(
    "internal-error",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "The desk made a mistake",
    "This is a fault of the desk, not of the request. `instance` identifies it in the desk's log.",
)

_BY_STATUS = {
    HTTPStatus.BAD_REQUEST: MALFORMED_REQUEST,
    HTTPStatus.UNAUTHORIZED: UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: FORBIDDEN,
    HTTPStatus.NOT_FOUND: NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: METHOD_NOT_ALLOWED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: BODY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY: INVALID_INPUT,
}


class Problem(Exception):
    """An answer that is a problem document of a known kind."""

    def __init__(self, kind: Kind, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        """Describe this occurrence; `members` are the extension members of the document."""
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    def response(self, instance: str) -> Response:
        """Write the document; `instance` identifies this occurrence."""
        return _document(self.kind, self.detail, instance, self.members, self.headers)


def _document(
    kind: Kind, detail: str, instance: str, members: Mapping[str, Any], headers: Mapping[str, str]
) -> Response:
    document = {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status.value,
        "detail": detail,
        "instance": f"urn:uuid:{instance}",
        **members,
    }
    content = json.dumps(document, ensure_ascii=False, default=str).encode(errors="replace")
    return Response(content, kind.status.value, headers=dict(headers), media_type=MEDIA_TYPE)


_OF_VALUES: Final = dict.fromkeys(
    (
        "unusable-calendar",
        "unusable-policy",
        "unknown-calendar",
        "unknown-policy",
        "occurred-later",
        "nothing-to-compare",
    ),
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
"""Refusals of what was said rather than of when it was said."""


def refusal_kind(refusal: type[Rejected]) -> Kind:
    """Say what a rule of the domain is called and means to a caller: its docstring is the explanation."""
    explanation = inspect.getdoc(refusal) or REFUSED.explanation
    status = _OF_VALUES.get(refusal.problem, HTTPStatus.CONFLICT)
    return Kind(refusal.problem, status, explanation.splitlines()[0].rstrip("."), explanation)


def _subclasses(of: type[Rejected]) -> Iterator[type[Rejected]]:
    for subclass in of.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def all_kinds() -> dict[str, Kind]:
    """Every kind of problem a caller can meet, the domain's refusals among them, by name."""
    refusals = {kind.problem: refusal_kind(kind) for kind in _subclasses(Rejected) if hasattr(kind, "problem")}
    return refusals | KINDS


def response_to(failure: Exception, instance: str) -> Response | None:
    """Answer a failure that the caller should know about; None where it is the desk's own fault."""
    if isinstance(failure, Rejected):
        members = {"details": failure.details} if failure.details else {}
        return _document(refusal_kind(type(failure)), sentence(str(failure)), instance, members, {})
    problem = _problem_for(failure)
    return None if problem is None else problem.response(instance)


def is_the_callers(failure: Exception) -> bool:
    """Tell a request that was refused for what it asked from one that the desk could not carry out."""
    problem = _problem_for(failure)
    return isinstance(failure, Rejected) or (problem is not None and problem.kind.status < _FAULTS)


_FAULTS: Final = 500


def _problem_for(failure: Exception) -> Problem | None:
    if isinstance(failure, Problem):
        return failure
    for kinds, tell in _TOLD:
        if isinstance(failure, kinds):
            return tell(failure)
    return None


def _plainly(kind: Kind, *members: str, headers: Mapping[str, str] | None = None) -> Callable[[Any], Problem]:
    """Tell a failure by its own message, with some of its attributes."""

    def tell(failure: Any) -> Problem:
        told = {name: getattr(failure, name) for name in members}
        return Problem(kind, sentence(str(failure)), headers=headers, **told)

    return tell


def _stale(failure: StaleVersion) -> Problem:
    headers = {"ETag": f'"{failure.actual}"'}
    return Problem(STALE_VERSION, sentence(str(failure)), headers=headers, current_version=failure.actual)


def _cursor_invalid(failure: CursorInvalid) -> Problem:
    return invalid([{"parameter": "cursor", "in": "query", "detail": str(failure), "code": "cursor_invalid"}])


def _unreadable(failure: UnreadableEvent) -> Problem:
    # Never in the error's own words, which may quote what was recorded.
    row = failure.row
    detail = f"Version {row.version} of {row.stream}, at position {row.position}, {_UNREADABLE[failure.reason]}."
    members: dict[str, Any] = {
        "stream": row.stream,
        "version": row.version,
        "position": row.position,
        "topic": row.topic[:100],
    }
    if isinstance(failure, BrokenStream):
        members["expected"] = failure.expected
    return Problem(UNREADABLE_HISTORY, detail, reason=failure.reason, **members)


_UNREADABLE: Final = {
    BrokenStream.reason: "does not follow the version before it",
    UnknownTopic.reason: "is of a type that this release does not know",
    NewerShape.reason: "was written by a newer release",
    UndecodableState.reason: "cannot be decoded",
    UnfitEvent.reason: "cannot follow the events before it",
}


def _unavailable(_failure: Exception) -> Problem:
    return Problem(DATABASE_UNAVAILABLE, "The database does not answer.", headers=SOON)


def _of_the_framework(failure: HTTPException) -> Problem:
    kind = _BY_STATUS.get(HTTPStatus(failure.status_code), MALFORMED_REQUEST)
    return Problem(kind, _said_by_the_framework(failure), headers=failure.headers)


def _said_by_the_framework(failure: HTTPException) -> str:
    match failure.status_code:
        case HTTPStatus.NOT_FOUND:
            return "Nothing is served at this address."
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return "This address does not take that method."
        case _:
            return str(failure.detail)


def internal_error(instance: str) -> Response:
    """Answer a fault of the desk itself; what went wrong is in the log only."""
    return Problem(INTERNAL_ERROR, "Something went wrong here. Nothing is known to be recorded.").response(instance)


def unreadable(instance: str) -> Response:
    """Tell a customer that a record cannot be read: whether it is that customer's own cannot be read either."""
    return Problem(UNREADABLE_HISTORY, "This cannot be read at the moment.").response(instance)


def invalid(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Name the values that are wrong."""
    count = "1 value is" if len(errors) == 1 else f"{len(errors)} values are"
    return Problem(INVALID_INPUT, f"{count} not valid.", errors=list(errors))


def body_errors(failure: ValidationError) -> list[dict[str, str]]:
    """One entry a wrong value of a body, each with a JSON pointer (RFC 6901, as a fragment)."""
    found = failure.errors(include_url=False, include_context=False, include_input=False)
    return [
        {"pointer": json_pointer(error["loc"]), "detail": _plain(error["msg"]), "code": error["type"]}
        for error in found[:MOST_FIELDS_NAMED]
    ]


def parameter_errors(errors: Iterable[Any]) -> list[dict[str, str]]:
    """One entry a wrong path, query or header value."""
    return [
        {
            "parameter": ".".join(str(part) for part in error["loc"][1:])[:LONGEST_POINTER],
            "in": str(error["loc"][0]),
            "detail": _plain(error["msg"]),
            "code": error["type"],
        }
        for error in list(errors)[:MOST_FIELDS_NAMED]
    ]


def json_pointer(path: Iterable[str | int]) -> str:
    """Give a JSON pointer in fragment form, shortened where a caller's own field name is endless."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return "#" + "".join(f"/{part}" for part in parts)[:LONGEST_POINTER]


def sentence(text: str) -> str:
    """Begin with a capital and end with a full stop; the name of a field stays as it is written."""
    text = text.strip()
    if _WORD.match(text):
        text = text[:1].upper() + text[1:]
    return text + ("" if text.endswith((".", "!", "?")) else ".")


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")


_TOLD: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], Callable[[Any], Problem]], ...]] = (
    ((NotFound, NoSuchStream), _plainly(NOT_FOUND)),
    ((NoSuchMoment, BeforeItExisted), _plainly(NO_SUCH_MOMENT)),
    (Forbidden, _plainly(FORBIDDEN, "role", "command")),
    (ScopeMissing, _plainly(SCOPE_MISSING, "scope")),
    (StaleVersion, _stale),
    (KeyReused, _plainly(IDEMPOTENCY_KEY_REUSED)),
    (CursorInvalid, _cursor_invalid),
    (CursorExpired, _plainly(CURSOR_EXPIRED)),
    (NotReached, _plainly(VIEW_BEHIND, "view", "wanted", "reached", "state", headers=SOON)),
    (NotYetKept, _plainly(VIEW_BEHIND, "view", "wanted", "reached", headers=SOON)),
    (ViewsNotReady, _plainly(VIEW_BEHIND, headers=SOON)),
    (RequestValidationError, lambda failure: invalid(parameter_errors(failure.errors()))),
    (ValidationError, lambda failure: invalid(body_errors(failure))),
    (LogBusy, _plainly(BUSY, headers=SOON)),
    (EventTooLarge, _plainly(EVENT_TOO_LARGE, "size", "limit")),
    (UnreadableEvent, _unreadable),
    (
        (LogUnavailable, DatabaseUnreachable, psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction),
        _unavailable,
    ),
    (HTTPException, _of_the_framework),
)
"""What each failure is told as."""

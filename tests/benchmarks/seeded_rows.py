"""Rows of a made-up log, as a binary COPY takes them, made from templates of lives."""

from __future__ import annotations

import os
import random
import struct
from binascii import b2a_base64
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from storage.keyring import NONCE_BYTES, SALT_BYTES
from tests.benchmarks.seeded_course import PLACE_BITS, PLACES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from storage.append import NewEvent
    from storage.keyring import Keyring
    from tests.benchmarks.seeded_course import Course
    from tests.benchmarks.seeded_lives import Step

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
COLUMNS: Final = "notification_id, originator_id, originator_version, topic, state, personal, recorded_at"
NULL: Final = b"\xff\xff\xff\xff"
BEGINNING: Final = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
"""From where PostgreSQL counts microseconds."""
RECORDED_LATER: Final = 3_000  # microseconds between an event and its recording
LARGEST_PIECE: Final = 1 << 20
EVENTS_A_PIECE: Final = 400  # of less than 2 KB each
HOUR: Final = 3_600_000_000
RANDOMS_AT_ONCE: Final = 2_048

WITHIN_HOUR: Final = [b"%02d:%02d." % divmod(second, 60) for second in range(3_600)]

_front = struct.Struct(">hiqi16siq").pack
_whole = struct.Struct(">q").pack
_size = struct.Struct(">i").pack
_numbers = struct.Struct(">IHI").unpack_from


def row_of(position: int, event: NewEvent, recorded_at: int) -> bytes:
    """Pack an encoded event, recorded at so many microseconds since 1970: each column after its size."""
    topic = event.topic.encode()
    personal = NULL if event.personal is None else _size(len(event.personal)) + event.personal
    return b"".join(
        (
            _front(7, 8, position, 16, event.stream.bytes, 8, event.version),
            _size(len(topic)),
            topic,
            _size(len(event.state)),
            event.state,
            personal,
            _size(8),
            _whole(recorded_at - BEGINNING),
        )
    )


@dataclass(frozen=True, slots=True)
class Script:
    """All that the rows of tickets are made from; the same script gives the same log but for salts and nonces."""

    seed: int
    course: Course
    lives: Sequence[Sequence[Step]]
    texts: Mapping[str, Sequence[bytes]]
    requesters: Sequence[UUID]
    first_position: int


class _Person(NamedTuple):
    """Whom a personal value is about: the id as text and as bytes, and what encrypts."""

    text: bytes
    id: bytes
    key: AESGCM


class _Form:
    """One step of a life as a row: all of it that is the same whichever ticket takes the step.

    What is filled into the state has the same length every time, so that its size is known.
    """

    __slots__ = ("moments", "personal", "pick", "row", "sealed")

    def __init__(self, step: Step, version: int, script: Script, people: Mapping[UUID, _Person]) -> None:
        topic = step.topic.encode()
        fixed = _size(8) + _whole(version) + _size(len(topic)) + topic + _size(step.size)
        personal = b"%b" if step.sealed else NULL
        # Position, stream, state, personal values and the time: the rest is written once and for all.
        self.row = b"\0\7\0\0\0\10%b\0\0\0\20%b" + fixed.replace(b"%", b"%%") + step.state + personal + b"\0\0\0\10%b"
        own = step.values
        order = (own, own + 1, *step.picked, *([own + 3] if step.sealed else []), own + 2)
        self.pick: Callable[[tuple[bytes, ...]], tuple[bytes, ...]] = itemgetter(*order)
        self.personal = step.personal
        self.moments = step.moments
        # Whose it is, if not the requester's; what it is bound to; and the texts of its kind, with which one it is.
        self.sealed = [
            (
                None if one.subject is None else people[one.subject],
                b"%d\0%b" % (version, one.field.encode()),
                script.texts[one.kind],
                one.number * 7919,
            )
            for one in step.sealed
        ]


class _Ticket:
    """The ticket that is in a place: what it is called, the life it lives from which event of the place on, whose it is."""

    __slots__ = ("end", "forms", "requester", "start", "stream", "texts")

    def __init__(self, writer: Writer, place: int, start: int) -> None:
        mixed = blake2b(b"%d %d %d" % (writer.script.seed, place, start), digest_size=26).digest()
        # An id of version 4, and three numbers.
        self.stream = b"%b%c%b%c%b" % (mixed[:6], mixed[6] & 15 | 64, mixed[7:8], mixed[8] & 63 | 128, mixed[9:16])
        life, share, self.texts = _numbers(mixed, 16)
        self.forms = writer.forms[life % len(writer.forms)]
        # Some people ask often: every other ticket is by one quarter of them.
        self.requester = writer.requesters[len(writer.requesters) * share * share >> 32]
        self.start = start
        self.end = start + len(self.forms)


class Writer:
    """Makes the rows of rounds, which may be left out but not gone back to.

    What `storage.keyring` does for each value is done here for many: keys and what is bound to them are looked up once
    a person or step, and random bytes are fetched by the thousand. The tests open every value.
    """

    def __init__(self, script: Script, keyring: Keyring) -> None:
        self.script = script
        people = {
            one: _Person(str(one).encode(), one.bytes, key) for one, key in keyring._keys.items() if key is not None
        }
        self.requesters = [people[one] for one in script.requesters]
        self.forms = [
            [_Form(step, version, script, people) for version, step in enumerate(life, start=1)]
            for life in script.lives
        ]
        self._workspace = keyring._workspace + b"\0"
        self._tickets = [_Ticket(self, place, 0) for place in range(len(script.course.paces))]
        self._randoms: list[bytes] = []

    def rows(self, number: int) -> Iterator[bytes]:
        """Give the rows of a round, in pieces of LARGEST_PIECE bytes at most."""
        course, tickets, whole, seal = self.script.course, self._tickets, _whole, self._seal
        instant, later = course.instant, RECORDED_LATER - BEGINNING
        turns = course.order(number)
        first = self.script.first_position + course.before(number)
        done = [(number - begins) * pace for begins, pace in zip(course.begins, course.paces, strict=True)]
        chance = random.Random(f"{self.script.seed} {number}")  # noqa: S311 - repeatable ids, no secret
        # The commands of a round have ids that begin alike.
        alike = str(UUID(int=chance.getrandbits(128), version=4)).encode()[:24]
        ends = chance.randbytes(6 * len(turns)).hex().encode()
        piece: list[bytes] = []
        hour, hour_text = 0, b""
        for position, (turn, cut) in enumerate(zip(turns, range(0, 12 * len(turns), 12), strict=True), start=first):
            place = turn & PLACES
            event = done[place]
            done[place] = event + 1
            ticket = tickets[place]
            while event >= ticket.end:
                ticket = tickets[place] = _Ticket(self, place, ticket.end)
            form = ticket.forms[event - ticket.start]
            at = instant(turn >> PLACE_BITS)
            if at - hour >= HOUR:
                hour, hour_text = _hour_of(at)
            second, microsecond = divmod(at - hour, 1_000_000)
            when = b"%b%b%06dZ" % (hour_text, WITHIN_HOUR[second], microsecond)
            values = (when, alike + ends[cut : cut + 12], ticket.requester.text)
            there = (whole(position), ticket.stream, whole(at + later))
            if form.sealed:
                commitments, personal = seal(ticket, form)
                moments = self._moments(ticket, place, form)
                piece.append(form.row % form.pick((*values, *commitments, *moments, *there, personal)))
            elif form.moments:
                piece.append(form.row % form.pick(values + self._moments(ticket, place, form) + there))
            else:
                piece.append(form.row % form.pick(values + there))
            if len(piece) >= EVENTS_A_PIECE:
                yield b"".join(piece)
                piece.clear()
        if piece:
            yield b"".join(piece)

    def _seal(self, ticket: _Ticket, form: _Form) -> tuple[list[bytes], bytes]:
        """Give a step's commitments and its personal values, made as `storage.codec.encode` makes them."""
        commitments: list[bytes] = []
        boxes: list[bytes] = []
        randoms = self._randoms
        if len(randoms) < len(form.sealed):
            randoms += _randoms()
        bound, chosen = self._workspace + ticket.stream, ticket.texts
        for subject, place, some, number in form.sealed:
            fresh = randoms.pop()
            nonce = fresh[SALT_BYTES:]
            plain = fresh[:SALT_BYTES] + some[(chosen + number) % len(some)]
            _, person, key = subject or ticket.requester
            box = person + nonce + key.encrypt(nonce, plain, bound + place)
            commitments.append(b2a_base64(sha256(plain).digest(), newline=False))
            boxes.append(b2a_base64(box, newline=False))
        personal = form.personal % tuple(boxes)
        return commitments, _size(len(personal)) + personal

    def _moments(self, ticket: _Ticket, place: int, form: _Form) -> tuple[bytes, ...]:
        """Write the instants that a step tells of, which are those of other steps of the same ticket."""
        course, found = self.script.course, []
        for moment in form.moments:
            at = course.instant(course.turn(place, ticket.start + moment.step)) + moment.later
            hour, text = _hour_of(at)
            second, microsecond = divmod(at - hour, 1_000_000)
            found.append(b"%b%b%06dZ" % (text, WITHIN_HOUR[second], microsecond))
        return tuple(found)


def _randoms() -> list[bytes]:
    """Give salts, each with a nonce; they are fetched together, as each fetching is a call of the system."""
    each = SALT_BYTES + NONCE_BYTES
    fresh = os.urandom(each * RANDOMS_AT_ONCE)
    return [fresh[cut : cut + each] for cut in range(0, len(fresh), each)]


def _hour_of(instant: int) -> tuple[int, bytes]:
    """Give the hour in which an instant is, in microseconds since 1970 and as the beginning of its text."""
    hour = instant - instant % HOUR
    return hour, datetime.fromtimestamp(hour // 1_000_000, UTC).strftime("%Y-%m-%dT%H:").encode()

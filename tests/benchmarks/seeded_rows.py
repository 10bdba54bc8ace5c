"""Rows of a made-up log, as a binary COPY takes them, made from templates of lives."""

from __future__ import annotations

import os
import random
import struct
from binascii import b2a_base64
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Final
from uuid import UUID

from storage.keyring import SALT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
EVENTS_A_PIECE: Final = 4_000
SALTS_AT_ONCE: Final = 4_096

# The number of columns; position, stream, version, each after its size. Topic, state and personal values follow, each
# after its size, and the time at the end.
_front = struct.Struct(">hiqi16siq").pack
_size = struct.Struct(">i").pack
_back = struct.Struct(">iq").pack


def row_of(position: int, event: NewEvent, recorded_at: int) -> bytes:
    """Pack an encoded event, recorded at so many microseconds since 1970."""
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
            _back(8, recorded_at - BEGINNING),
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


class _Ticket:
    """The ticket that is in a place: which life it lives, whose it is, and where its texts are in those made up."""

    __slots__ = ("bytes", "end", "id", "life", "requester", "start", "texts")

    def __init__(self, script: Script, place: int, start: int) -> None:
        mixed = blake2b(b"%d %d %d" % (script.seed, place, start), digest_size=40).digest()
        numbers = int.from_bytes(mixed[16:])
        self.bytes = mixed[:6] + bytes((mixed[6] & 0x0F | 0x40, mixed[7], mixed[8] & 0x3F | 0x80)) + mixed[9:16]
        self.life = script.lives[numbers % len(script.lives)]
        # Some people ask often: of every two tickets one is by a quarter of them.
        share = (numbers >> 64 & 0xFFFF) / 0x10000
        requester = int(len(script.requesters) * share * share)
        self.requester = script.requesters[requester]
        self.texts = numbers >> 96 & 0xFFFFFF
        self.id = UUID(bytes=self.bytes)
        self.start = start
        self.end = start + len(self.life)


class Writer:
    """Makes the rows of rounds, which may be left out but not gone back to."""

    def __init__(self, script: Script, keyring: Keyring) -> None:
        self._script = script
        self._keyring = keyring
        self._ids = {one: str(one).encode() for one in script.requesters}
        course = script.course
        self._tickets = [_Ticket(script, place, 0) for place in range(len(course.paces))]
        self._days: dict[int, bytes] = {}
        self._salts: list[bytes] = []

    def rows(self, number: int) -> Iterator[bytes]:
        """Give the rows of a round, in pieces of some megabytes."""
        script, course, tickets = self._script, self._script.course, self._tickets
        position = script.first_position + course.before(number)
        chance = random.Random(f"{script.seed} {number}")  # noqa: S311 - repeatable ids, no secret
        commands = chance.randbytes(16 * sum(course.paces)).hex().encode()
        done = [(number - begins) * pace for begins, pace in zip(course.begins, course.paces, strict=True)]
        instant, text_of, seal, ids = course.instant, self._text_of, self._seal, self._ids
        front, size, back = _front, _size, _back
        cut = 0
        piece: list[bytes] = []
        for turn, place in course.order(number):
            event = done[place]
            done[place] = event + 1
            ticket = tickets[place]
            while event >= ticket.end:
                ticket = tickets[place] = _Ticket(script, place, ticket.end)
            step = ticket.life[event - ticket.start]
            version = event - ticket.start + 1
            at = instant(turn)
            command = b"%b-%b-4%b-8%b-%b" % (
                commands[cut : cut + 8],
                commands[cut + 8 : cut + 12],
                commands[cut + 13 : cut + 16],
                commands[cut + 17 : cut + 20],
                commands[cut + 20 : cut + 32],
            )
            cut += 32
            values: tuple[bytes, ...] = (text_of(at), command, ids[ticket.requester])
            if step.sealed:
                commitments, boxes = seal(ticket, version, step)
                values += commitments
                personal = step.personal % boxes
                sealed = size(len(personal)) + personal
            else:
                sealed = NULL
            for moment in step.moments:
                values += (text_of(instant(course.turn(place, ticket.start + moment.step)) + moment.later),)
            state = step.state % step.pick(values)
            piece += (
                front(7, 8, position, 16, ticket.bytes, 8, version),
                step.topic,
                size(len(state)),
                state,
                sealed,
                back(8, at + RECORDED_LATER - BEGINNING),
            )
            position += 1
            if len(piece) >= 6 * EVENTS_A_PIECE:
                yield b"".join(piece)
                piece.clear()
        if piece:
            yield b"".join(piece)

    def _seal(self, ticket: _Ticket, version: int, step: Step) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Give commitments and boxes of a step's personal values, made as `storage.codec.encode` makes them."""
        commitments: tuple[bytes, ...] = ()
        boxes: tuple[bytes, ...] = ()
        all_texts, seal, stream = self._script.texts, self._keyring.seal, ticket.id
        for field, subject, kind, number in step.sealed:
            some = all_texts[kind]
            plain = self._salt() + some[(ticket.texts + number * 7919) % len(some)]
            commitments += (b2a_base64(sha256(plain).digest(), newline=False),)
            box = seal(subject or ticket.requester, stream, version, field, plain)
            boxes += (b2a_base64(box, newline=False),)
        return commitments, boxes

    def _salt(self) -> bytes:
        """Give a salt; they are fetched together, as each fetching is a call of the system."""
        if not self._salts:
            fresh = os.urandom(SALT_BYTES * SALTS_AT_ONCE)
            self._salts = [fresh[cut : cut + SALT_BYTES] for cut in range(0, len(fresh), SALT_BYTES)]
        return self._salts.pop()

    def _text_of(self, instant: int) -> bytes:
        seconds, microseconds = divmod(instant, 1_000_000)
        minutes, second = divmod(seconds, 60)
        hours, minute = divmod(minutes, 60)
        day, hour = divmod(hours, 24)
        date = self._days.get(day)
        if date is None:
            date = self._days[day] = datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%dT").encode()
        return b"%b%02d:%02d:%02d.%06dZ" % (date, hour, minute, second, microseconds)

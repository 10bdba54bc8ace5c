"""Keys of persons: one each, wrapped by the root key, so that destroying one makes that person's values unreadable."""

from __future__ import annotations

import hmac
import os
from base64 import b64decode
from collections import OrderedDict
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from psycopg.sql import SQL, Identifier
from pydantic_core import from_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from storage.database import Database
    from storage.log_reader import StoredRow

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
ID_BYTES: Final = 16
SALT_BYTES: Final = 16
ERASED: Final = "[erased]"
"""What an opened personal value reads as when its key or bytes are gone."""
KEYS_HELD: Final = 25_000  # about 10 MB; beyond it the longest unused is dropped and read again when needed
OPENED_HELD: Final = 30_000  # texts, about 15 MB: the subjects and names that lists show again and again


class RootKeyError(Exception):
    """The root key is missing, malformed, or not the one this desk's personal data is encrypted under."""


def root_key(path: Path, *, create: bool) -> bytes:
    """Read the root key (32 bytes, hexadecimal) from a file; with `create`, make one where there is none.

    Raises RootKeyError.
    """
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            # Written aside and linked into place, so that a second process never reads half a key.
            aside = path.with_name(f".{path.name}.{os.getpid()}")
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(descriptor, os.urandom(KEY_BYTES).hex().encode() + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            try:
                os.link(aside, path)
            finally:
                aside.unlink()
    try:
        key = bytes.fromhex(path.read_text().strip())
    except OSError as error:
        message = f"The root key file {path} cannot be read: {error.strerror}."
        raise RootKeyError(message) from None
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        message = f"The root key file {path} must hold {KEY_BYTES} bytes in hexadecimal."
        raise RootKeyError(message)
    return key


class Keyring:
    """The keys of one workspace. Fetching keys waits for the database; sealing and opening do not."""

    def __init__(self, database: Database, workspace: str, schema: str, root: bytes) -> None:
        self._database = database
        self._workspace = workspace.encode()
        self._wrapping = AESGCM(_derive(root, f"personal keys of {workspace}"))
        self._hashing = _derive(root, f"keyed hashes of {workspace}")
        self._keys: OrderedDict[UUID, AESGCM | None] = OrderedDict()
        # Token → stream it comes from and text. Held no longer than the keys: whatever makes a key go drops them all.
        self._opened: dict[str, tuple[int, str]] = {}
        self.generation = 0
        """Counts how often keys were dropped: whoever keeps what was opened drops it then."""
        name = Identifier(schema)
        self._sql_load = SQL(_LOAD).format(schema=name).as_string()
        self._sql_insert = SQL(_INSERT).format(schema=name).as_string()

    def digest(self, purpose: str, value: bytes) -> bytes:
        """Give a keyed hash (HMAC-SHA-256, 32 bytes) of a value that must not be guessable from its hash."""
        return hmac.digest(self._hashing, purpose.encode() + b"\0" + value, "sha256")

    async def ensure(self, subjects: Iterable[UUID]) -> None:
        """Have a key for each person, making those that are missing; they are durable when this returns."""
        missing = {subject for subject in self._used(subjects) if self._keys.get(subject) is None}
        if not missing:
            return
        await self._fetch(missing, there=False)
        missing = {subject for subject in missing if self._keys.get(subject) is None}
        if missing:
            fresh = {subject: os.urandom(KEY_BYTES) for subject in sorted(missing)}
            async with self._database.pool.connection() as connection:
                wrapped = [self._wrap(subject, key) for subject, key in fresh.items()]
                # Another process may have been first: then its key stands, and is the one read back.
                await connection.execute(self._sql_insert, (list(fresh), wrapped))
            await self._fetch(missing)

    async def load(self, rows: Iterable[StoredRow]) -> None:
        """Fetch the keys that opening these rows will take."""
        wanted: set[UUID] = set()
        for row in rows:
            if row.personal is not None:
                # What is no such object, or holds no boxes, is for the reading of the row to name.
                with suppress(ValueError, TypeError, AttributeError):
                    wanted.update(_subject(box) for box in from_json(row.personal).values())
        await self._fetch({subject for subject in self._used(wanted) if subject not in self._keys})

    async def reveal(self, items: Iterable[tuple[UUID, str | None]]) -> list[Any]:
        """Open sealed tokens, each with the stream it comes from; ERASED where key or bytes are gone, None for None."""
        found: list[Any] = []
        sealed: list[tuple[int, UUID, str]] = []
        for place, (stream, token) in enumerate(items):
            held = None if token is None else self._opened.get(token)
            if held is not None and held[0] == stream.int:
                found.append(held[1])
            else:
                found.append(None)
                if token is not None:
                    sealed.append((place, stream, token))
        if sealed:
            await self._reveal(sealed, found)
        return found

    async def _reveal(self, sealed: list[tuple[int, UUID, str]], found: list[Any]) -> None:
        """Open tokens and put each value at its place."""
        parts = [token.split(".", 2) for _, _, token in sealed]
        wanted = {_subject(part[2]) for part in parts if len(part) == _TOKEN_PARTS}
        await self._fetch({subject for subject in self._used(wanted) if subject not in self._keys})
        for (place, stream, token), part in zip(sealed, parts, strict=True):
            value = self.open(stream, int(part[0]), part[1], part[2]) if len(part) == _TOKEN_PARTS else None
            found[place] = ERASED if value is None else value[0]
            if value is not None and isinstance(value[0], str):
                self._opened[token] = stream.int, value[0]
        while len(self._opened) > OPENED_HELD:
            del self._opened[next(iter(self._opened))]

    def seal(self, subject: UUID, stream: UUID, version: int, field: str, plain: bytes) -> bytes:
        """Encrypt a value under a person's key, bound to its place; the result names the person."""
        key = self._keys[subject]
        if key is None:
            message = f"the key of {subject} was destroyed"
            raise RootKeyError(message)
        nonce = os.urandom(NONCE_BYTES)
        return subject.bytes + nonce + key.encrypt(nonce, plain, self._place(stream, version, field))

    def open(self, stream: UUID, version: int, field: str, box: str) -> tuple[Any] | None:
        """Decrypt a value, as a tuple of one; None when the person's key is gone or the bytes are not authentic."""
        raw = b64decode(box)
        subject = UUID(bytes=raw[:ID_BYTES])
        key = self._keys.get(subject)
        if key is None:
            return None
        nonce, sealed = raw[ID_BYTES : ID_BYTES + NONCE_BYTES], raw[ID_BYTES + NONCE_BYTES :]
        try:
            plain = key.decrypt(nonce, sealed, self._place(stream, version, field))
        except InvalidTag:
            return None
        return (from_json(plain[SALT_BYTES:]),)

    def forget(self) -> None:
        """Drop every key held in memory, and what was opened with them; they are read again when needed."""
        self._keys.clear()
        self._forget_opened()

    def _forget_opened(self) -> None:
        self._opened.clear()
        self.generation += 1

    def _place(self, stream: UUID, version: int, field: str) -> bytes:
        return b"%b\0%b%d\0%b" % (self._workspace, stream.bytes, version, field.encode())

    def _used(self, subjects: Iterable[UUID]) -> set[UUID]:
        """Keep those that are wanted from being dropped for others that are fetched with them."""
        wanted = set(subjects)
        for subject in wanted:
            if subject in self._keys:
                self._keys.move_to_end(subject)
        return wanted

    async def _fetch(self, subjects: Iterable[UUID], *, there: bool = True) -> None:
        """Read keys; where they should be `there` and one is not, it was destroyed."""
        wanted = list(subjects)
        if not wanted:
            return
        async with self._database.pool.connection() as connection:
            cursor = await connection.execute(self._sql_load, (wanted,), prepare=True)
            found: dict[UUID, bytes] = dict(await cursor.fetchall())
        if there and len(found) < len(wanted):
            self._forget_opened()
        for subject in wanted:
            wrapped = found.get(subject)
            self._keys[subject] = None if wrapped is None else AESGCM(self._unwrap(subject, wrapped))
        while len(self._keys) > max(KEYS_HELD, len(wanted)):
            self._keys.popitem(last=False)

    def _wrap(self, subject: UUID, key: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._wrapping.encrypt(nonce, key, subject.bytes)

    def _unwrap(self, subject: UUID, wrapped: bytes) -> bytes:
        try:
            return self._wrapping.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], subject.bytes)
        except InvalidTag:
            message = f"The key of {subject} is not wrapped by this root key."
            raise RootKeyError(message) from None


_TOKEN_PARTS = 3

_LOAD = "SELECT subject_id, wrapped_key FROM {schema}.personal_keys WHERE subject_id = ANY(%s)"

_INSERT = """
INSERT INTO {schema}.personal_keys (subject_id, wrapped_key)
SELECT * FROM unnest(%s::uuid[], %s::bytea[]) ON CONFLICT (subject_id) DO NOTHING
"""


def key_check(root: bytes, workspace: str) -> bytes:
    """Give a value by which a workspace recognises its root key without revealing it."""
    return sha256(b"ledgerdesk root key\0" + _derive(root, f"check of {workspace}")).digest()


def _derive(root: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"ledgerdesk " + purpose.encode()).derive(root)


def _subject(box: str) -> UUID:
    """Give the person named at the start of a box: 24 base64 characters hold its 16 bytes."""
    return UUID(bytes=b64decode(box[:24])[:ID_BYTES])

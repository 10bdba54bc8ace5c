"""The desk's calendars and policies as the timer goes by them, with the moves that open tickets have yet to make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.service_levels import EMPTY_BOOK, SERVICE_LEVELS_ID
from domain.sla_moves import move_of
from storage.codec import decode

if TYPE_CHECKING:
    from domain.service_levels import Book
    from domain.sla_moves import Move
    from storage.database import Workspace


class Levels:
    """What a workspace has adopted, up to a version of the stream of service levels."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._epoch: str | None = None
        self.book: Book = EMPTY_BOOK
        self.version = 0
        self.moves: list[Move] = []

    async def catch_up(self, *, carried_upto: int) -> None:
        """Take in what was adopted since; moves that have been carried to every open ticket are let go of."""
        epoch = await self._workspace.log.epoch()
        if epoch != self._epoch:
            # What was adopted last may have been lost with another server.
            self._epoch, self.book, self.version, self.moves = epoch, EMPTY_BOOK, 0, []
        for row in await self._workspace.log.stream(SERVICE_LEVELS_ID, after=self.version):
            event = decode(row).event
            self.book = self.book.extended(event)
            self.version = row.version
            move = move_of(event, row.position, self.book)
            if move is not None:
                self.moves.append(move)
        self.moves = [move for move in self.moves if move.version > carried_upto]

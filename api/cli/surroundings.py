"""What every command of the command line stands on: settings, the database, and sentences for what goes wrong."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from api.problems import sentence
from api.server import AddressUnavailable
from commands.desk import NotFound
from domain.event import Rejected
from projections.view import ViewError
from replay.stream import ReplayError
from storage.append import LogError
from storage.database import Database, DatabaseUnreachable, UnknownWorkspace
from storage.keyring import RootKeyError
from storage.migrations import MigrationError, migrate
from storage.programs import EmbeddedServerError
from storage.settings import WORKSPACE_NAME, Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    import typer

    from storage.database import Workspace

T = TypeVar("T")

REFUSED: Final = 1
MISCONFIGURED: Final = 2


class Failure(Exception):
    """The command did not do its work; the message is one sentence."""

    def __init__(self, message: str, status: int = REFUSED) -> None:
        """Say why, and with which status to end."""
        super().__init__(message)
        self.status = status


class Surroundings:
    """The settings a command runs under."""

    def __init__(self, workspace: str | None) -> None:
        """Use `workspace` where it is given, else what the environment says."""
        self._workspace = workspace

    def settings(self) -> Settings:
        """Read the environment. Raises SettingsError."""
        settings = Settings.from_environment()
        if self._workspace is None:
            return settings
        if WORKSPACE_NAME.fullmatch(self._workspace) is None:
            message = (
                "A workspace's name is at most 40 lower-case letters, digits and underscores, beginning with a "
                f"letter, not {self._workspace!r}."
            )
            raise SettingsError(message)
        return replace(settings, workspace=self._workspace)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[tuple[Database, Settings]]:
        """Open the database, brought up to date; the embedded server is started or joined."""
        settings = self.settings()
        async with settings.server_conninfo("ledgerdesk_owner"):
            await migrate(settings)
            async with await Database.open(settings) as database:
                yield database, settings

    @asynccontextmanager
    async def workspace(self) -> AsyncIterator[Workspace]:
        """Open the workspace the command works on."""
        async with self.database() as (database, settings):
            yield await database.workspace(settings.workspace)


def surroundings_of(context: typer.Context) -> Surroundings:
    """Give what the global options said."""
    return cast("Surroundings", context.obj)


def work(coroutine: Coroutine[Any, Any, T]) -> T:
    """Carry out a command's work."""
    return asyncio.run(coroutine)


def explain(error: Exception) -> Failure | None:
    """Put an error that a person can do something about into a sentence; None for a fault of the desk."""
    match error:
        case SettingsError() | DatabaseUnreachable() | MigrationError() | RootKeyError() | EmbeddedServerError():
            return Failure(str(error), MISCONFIGURED)
        case AddressUnavailable():
            return Failure(str(error), MISCONFIGURED)
        case UnknownWorkspace():
            return Failure(f"{error} `desk workspace create` makes one.", MISCONFIGURED)
        case Rejected() | NotFound() | LogError() | ReplayError() | ViewError():
            return Failure(sentence(str(error)))
        case _:
            return None

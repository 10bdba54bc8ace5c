"""PostgreSQL's own programs for the embedded server: psql, pg_dump, pg_restore and the others that come along."""

from __future__ import annotations

import subprocess
from typing import Annotated

import typer

from api.cli.surroundings import MISCONFIGURED, Failure, surroundings_of
from storage.embedded import EmbeddedServer


def add_to(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command("pg", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(run)


def run(
    context: typer.Context, program: Annotated[str, typer.Argument(help="Such as psql, pg_dump or pg_restore.")]
) -> None:
    """Run a program of PostgreSQL on the embedded server's database, as its owner; all that follows is the program's."""
    settings = surroundings_of(context).settings()
    if not settings.embedded:
        message = "`desk pg` is for the embedded server; for the one of DATABASE_URL use the programs of its version."
        raise Failure(message, MISCONFIGURED)
    with EmbeddedServer(settings.data_dir, version=settings.postgres_version) as server:
        environment = server.environment()
        done = subprocess.run([server.bin(program), *context.args], env=environment, check=False)  # noqa: S603 - as asked
    raise typer.Exit(done.returncode)

"""Looking after the record: migrations, workspaces and credentials."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.surroundings import MISCONFIGURED, Failure, explain, surroundings_of, work
from commands.desk import Desk
from commands.request import SCOPES
from domain.agent import Agent
from domain.customer import Customer
from domain.event import SYSTEM_ACTOR, Role
from storage import credentials
from storage.migrations import create_workspace, migrate

if TYPE_CHECKING:
    from uuid import UUID

    from storage.database import Workspace

_DAYS = re.compile(r"([1-9][0-9]{0,4})d")

workspaces = typer.Typer(no_args_is_help=True, help="Workspaces: each with a log, views and keys of its own.")
issued = typer.Typer(no_args_is_help=True, help="Credentials for HTTP.")


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("migrate")(bring_up_to_date)
    app.add_typer(workspaces, name="workspace")
    app.add_typer(issued, name="credential")


def bring_up_to_date(context: typer.Context) -> None:
    """Bring the database's schema up to date."""
    steps: list[str] = []
    work(migrate(surroundings_of(context).settings(), note=steps.append))
    for step in steps:
        typer.echo(step)
    typer.echo(f"The schema is up to date; steps applied: {len(steps)}.")


@workspaces.command("create")
def create(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Lower-case letters, digits and _.")]
) -> None:
    """Create a workspace."""
    settings = surroundings_of(context).settings()

    async def make() -> bool:
        async with settings.server_conninfo("ledgerdesk_owner"):
            await migrate(settings)
            return await create_workspace(settings, name)

    try:
        made = work(make())
    except ValueError as error:
        raise explain(error) or Failure(str(error), MISCONFIGURED) from None
    if not made:
        message = f"There is a workspace {name!r} already."
        raise Failure(message)
    typer.echo(f"Created the workspace {name}.")


@workspaces.command("list")
def list_workspaces(context: typer.Context) -> None:
    """List the workspaces."""

    async def names() -> list[str]:
        async with surroundings_of(context).database() as (database, _):
            return [workspace.name for workspace in await database.workspaces()]

    for name in work(names()):
        typer.echo(name)


@issued.command("issue")
def issue(
    context: typer.Context,
    role: Annotated[Role, typer.Option(help="In what capacity its bearer acts.")],
    agent: Annotated[str | None, typer.Option(help="The agent it is for: id or foreign id.")] = None,
    customer: Annotated[str | None, typer.Option(help="The customer it is for: id or foreign id.")] = None,
    label: Annotated[str, typer.Option(help="What it is for, in a few words.")] = "issued on the command line",
    expires: Annotated[
        str | None, typer.Option(help="When it ends: an instant with its zone, or days such as 90d.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may do beyond its role: backdate (say when something occurred).")
    ] = None,
) -> None:
    """Make a credential and print its token, this once."""
    until = None if expires is None else _instant(expires)
    scopes = set(scope or ())
    if unknown := scopes.difference(SCOPES):
        message = f"There is no scope {', '.join(map(repr, sorted(unknown)))}; there is: {', '.join(SCOPES)}."
        raise Failure(message, MISCONFIGURED)

    async def make() -> str:
        async with surroundings_of(context).workspace() as workspace:
            actor_id = await _bearer(workspace, role, agent, customer)
            return await credentials.issue(
                workspace.database, workspace.name, role, actor_id, label=label, expires_at=until, scopes=scopes
            )

    typer.echo(work(make()))


async def _bearer(workspace: Workspace, role: Role, agent: str | None, customer: str | None) -> UUID:
    """Give who acts with a credential. Raises Failure, NotFound."""
    if (customer is None) == (role is Role.CUSTOMER):
        message = "A credential of the role customer names its --customer, and no other does."
        raise Failure(message, MISCONFIGURED)
    desk = Desk(workspace)
    if customer is not None:
        if agent is not None:
            message = "Give --agent or --customer, not both."
            raise Failure(message, MISCONFIGURED)
        return (await desk.load(Customer, await desk.resolve("customer", customer))).id
    if agent is not None:
        return (await desk.load(Agent, await desk.resolve("agent", agent))).id
    return SYSTEM_ACTOR


def _instant(text: str) -> datetime:
    days = _DAYS.fullmatch(text)
    try:
        instant = datetime.now(UTC) + timedelta(days=int(days[1])) if days else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        instant = None
    if instant is None or instant.tzinfo is None:
        message = f"--expires takes an instant with its zone, such as 2030-01-31T12:00+01:00, or 90d, not {text!r}."
        raise Failure(message, MISCONFIGURED)
    return instant

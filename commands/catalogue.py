"""Every command of the desk, in one list: importing this registers them all."""

from __future__ import annotations

from commands import agents, customers, service_levels, teams, tickets
from commands.execution import COMMANDS

__all__ = ["COMMANDS", "agents", "customers", "service_levels", "teams", "tickets"]

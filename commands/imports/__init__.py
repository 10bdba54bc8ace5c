"""Histories of other desks, turned into customers, agents, teams, tickets and their events."""

from __future__ import annotations

from commands.imports.format import Format, ImportRefused
from commands.imports.formats import FORMATS
from commands.imports.runner import run_import
from commands.imports.summary import Summary

__all__ = ["FORMATS", "Format", "ImportRefused", "Summary", "run_import"]

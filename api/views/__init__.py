"""What views tell over HTTP, a module each: a module of this package that has a `router` is served."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import APIRouter


def routers() -> list[APIRouter]:
    """Give the router of every module here, so that a view with routes of its own is served by being there."""
    return [import_module(f"{__name__}.{found.name}").router for found in iter_modules(__path__)]

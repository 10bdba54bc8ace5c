"""The foreign logs that can be imported, one module each: a module here with a FORMAT is a format."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from commands.imports.format import Format


def found() -> dict[str, Format[Any]]:
    """Import every module beside this one, and give their formats by name."""
    names = sorted(module.name for module in iter_modules(__path__))
    formats = (import_module(f"{__name__}.{name}").FORMAT for name in names)
    return {format_.name: format_ for format_ in formats}


FORMATS: Final[dict[str, Format[Any]]] = found()
"""The formats by the name that the command line knows them by."""

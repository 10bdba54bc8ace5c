"""The foreign logs that can be imported, one module each: a module here with a FORMAT is a format."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from commands.imports.format import Format

FORMATS: Final[dict[str, Format[Any]]] = {
    module_format.name: module_format
    for module_format in (
        import_module(f"{__name__}.{module.name}").FORMAT
        for module in sorted(iter_modules(__path__), key=lambda module: module.name)
    )
}
"""The formats by the name that the command line knows them by."""

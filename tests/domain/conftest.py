"""What the tests of the domain say at their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.domain import peer_tally

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how peers' cases came out."""
    for line in peer_tally.lines():
        terminalreporter.write_line(line)

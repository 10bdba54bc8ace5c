"""The commands of docs/operations.md are run as they stand there, in order, in one shell."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.test_readme import ROOT, Shell, steps


def test_every_command_of_the_operations_guide_does_what_is_shown() -> None:
    # The embedded server, whatever the run was given: the guide's commands are about its programs and files.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DESK_", "DATABASE_URL"))}
    found = steps((ROOT / "docs" / "operations.md").read_text("utf-8"))
    assert len(found) > 8
    with tempfile.TemporaryDirectory(prefix="ledgerdesk_test_") as directory:
        place = Path(directory)
        place.chmod(0o711)
        environment = {
            "DESK_DATA_DIR": str(place / "data"),
            "COLUMNS": "200",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        shell = Shell(place, kept | environment)
        try:
            for step in found:
                output, status = shell.type(step.command)
                assert status == 0, f"{step.command}\n{output}"
                assert step.agrees(output), f"{step.command}\n--- shown\n{step.shown}--- was\n{output}"
        finally:
            shell.close()

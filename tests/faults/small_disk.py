"""A disk that can be made full and empty again: a file system in memory with a limit, where the system lets one mount."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Self

SIZE = 512 * 1024 * 1024  # bytes; only what is used takes memory
PAGE = 4096


class SmallDisk:
    """A file system of its own for PostgreSQL's data.

    Full means really full: extending a table fails with an error, and a log that cannot grow stops the whole server.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def mounted(cls, directory: Path) -> Self | None:
        """Mount one; None where this user or system does not allow it."""
        if os.geteuid() != 0:
            return None
        directory.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0711", "tmpfs", directory],  # noqa: S607
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            directory.rmdir()
            return None
        return cls(directory)

    def fill(self) -> None:
        """Leave no room: the limit becomes what is in use now."""
        used = os.statvfs(self.directory)
        self._resize((used.f_blocks - used.f_bfree) * used.f_frsize + PAGE)

    def free(self) -> None:
        """Give the room back."""
        self._resize(SIZE)

    def unmount(self) -> None:
        """Take it away with all that is on it."""
        subprocess.run(["umount", "--lazy", self.directory], check=True)  # noqa: S607
        Path(self.directory).rmdir()

    def _resize(self, size: int) -> None:
        subprocess.run(
            ["mount", "-o", f"remount,size={size}", self.directory],  # noqa: S607
            capture_output=True,
            check=False,
        )

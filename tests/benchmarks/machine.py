"""The machine a measurement was made on, without which its figures say nothing."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("eventsourcing", "fastapi", "psycopg", "pydantic", "uvicorn")


def machine() -> dict[str, Any]:
    """Give processor, cores, memory, system and the versions that matter."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def figures_line(figures: dict[str, Any]) -> str:
    """Give the one JSON line that a benchmark ends in, the machine with it."""
    return json.dumps({**figures, "machine": machine()}, ensure_ascii=False)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(machine(), ensure_ascii=False, indent=2) + "\n")

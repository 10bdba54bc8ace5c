"""Looking after the record: migrations, workspaces, credentials, and the views."""

from __future__ import annotations




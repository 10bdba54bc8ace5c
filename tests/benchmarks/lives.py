"""The lives of tickets as commands: what is sent, in which order, and bodies made beforehand so that sending is cheap."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

SUBJECTS = (
    "Printer on the third floor prints blank pages",
    "无法登录公司邮箱，提示密码错误",
    "VPN drops every few minutes since the update",
    "新员工入职需要开通系统权限",
    "Invoice shows the wrong delivery address",
    "会议室投影仪没有信号",
)
SENTENCES = (
    "It worked until yesterday evening and nothing was changed on our side since.",
    "已经重启过电脑，问题仍然存在，请尽快处理。",
    "Two colleagues in the same room see exactly the same thing.",
    "附上错误截图，今天下午三点前需要解决。",
    "Please call before twelve, the line is staffed in the morning only.",
)
CATEGORIES = ("hardware", "software", "network", "access", "billing")
TAGS = ("vip", "site-2", "laptop", "会议室", "again", "urgent-call", "waiting", "seen")
OPENINGS = 500  # different ones; a ticket's text costs the same whether another ticket has it as well
OTHERS = 100
TOGETHER = ("reply",) * 5 + ("add-note",) * 3 + ("tag", "untag")
"""Shares of the commands that many send to one ticket; of the last two about half change nothing."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One ticket being worked on: the commands still to come and the version acknowledged last."""

    reference: str = ""
    steps: deque[str] = field(default_factory=deque)
    version: int = 0
    shared: bool = False


def steps_of(chance: random.Random) -> deque[str]:
    """Lay out the life of one ticket: five or six commands in the middle, opened first and closed last."""
    steps = ["open", "assign", "reply"]
    if chance.random() < 0.5:
        steps.append("escalate")
    steps.extend(["reply"] * (0, 1, 1, 2)[int(chance.random() * 4)])
    steps.extend(["solve", "close"])
    return deque(steps)


def bodies(
    chance: random.Random, agents: Sequence[str], teams: Sequence[str], requesters: Sequence[str]
) -> dict[str, list[bytes]]:
    """Make up bodies for every command, any of which fits."""

    def opening() -> dict[str, Any]:
        return {
            "subject": chance.choice(SUBJECTS),
            "body": " ".join(chance.sample(SENTENCES, 3)),
            "requester_id": chance.choice(requesters),
            "channel": "email",
            "type": "incident",
            "priority": chance.choice(("low", "normal", "high", "urgent")),
            "category": chance.choice(CATEGORIES),
            "tags": ["bench"],
        }

    def text() -> dict[str, Any]:
        return {"text": " ".join(chance.sample(SENTENCES, 2))}

    values: dict[str, list[dict[str, Any]]] = {
        "open": [opening() for _ in range(OPENINGS)],
        "assign": [{"agent_id": chance.choice(agents), "team_id": chance.choice(teams)} for _ in range(OTHERS)],
        "reply": [text() for _ in range(OTHERS)],
        "add-note": [text() for _ in range(OTHERS)],
        "escalate": [{"level": 1, "team_id": team, "reason": "needs a specialist"} for team in teams],
        "tag": [{"tags": [tag]} for tag in TAGS],
        "untag": [{"tags": [tag]} for tag in TAGS],
        "solve": [{"resolution_code": "fixed"}],
        "close": [{}],
    }
    return {command: list(map(to_json, made)) for command, made in values.items()}

"""Who works at the demo desk, and whom it serves."""

from __future__ import annotations

from typing import Final, NamedTuple

from commands.demo.texts import BUSINESS, NETWORK, SERVICE, WORKPLACE


class Worker(NamedTuple):
    """An agent and the teams that the agent is in."""

    name: str
    email: str
    teams: tuple[str, ...]


WORKERS: Final = (
    Worker("Ann Okafor", "ann.okafor@desk.example", (SERVICE,)),
    Worker("陈思远", "chen.siyuan@desk.example", (SERVICE, NETWORK)),
    Worker("Bruno Keller", "bruno.keller@desk.example", (SERVICE,)),
    Worker("林晓雯", "lin.xiaowen@desk.example", (SERVICE, WORKPLACE)),
    Worker("Chiara Moretti", "chiara.moretti@desk.example", (NETWORK,)),
    Worker("赵启明", "zhao.qiming@desk.example", (NETWORK,)),
    Worker("David Lindqvist", "david.lindqvist@desk.example", (NETWORK, BUSINESS)),
    Worker("何佳怡", "he.jiayi@desk.example", (BUSINESS,)),
    Worker("Elena Petrova", "elena.petrova@desk.example", (BUSINESS,)),
    Worker("Frank Mensah", "frank.mensah@desk.example", (BUSINESS,)),
    Worker("郭志强", "guo.zhiqiang@desk.example", (WORKPLACE,)),
    Worker("Greta Halvorsen", "greta.halvorsen@desk.example", (WORKPLACE,)),
)
"""The first leads the service desk; the second supervises."""

FAMILY_NAMES_ZH: Final = "王李张刘杨黄吴徐孙朱马胡罗梁宋郑谢韩唐冯"
GIVEN_NAMES_ZH: Final = (
    "伟",
    "芳",
    "娜",
    "敏",
    "静",
    "丽华",
    "建国",
    "晨曦",
    "雨桐",
    "浩然",
    "子涵",
    "欣怡",
    "志远",
    "文博",
    "美玲",
)
FAMILY_NAMES: Final = (
    "Almeida", "Bauer", "Castillo", "Dubois", "Eriksen", "Fischer", "Garcia", "Hughes", "Ivanov", "Jensen",
    "Kowalski", "Larsen", "Murphy", "Novak", "Oliveira", "Park", "Quinn", "Rossi", "Schmidt", "Tanaka",
)  # fmt: skip
GIVEN_NAMES: Final = (
    "Alice", "Ben", "Clara", "Diego", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas",
    "Katya", "Liam", "Maya", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tara", "Victor",
)  # fmt: skip

ORGANISATIONS: Final = {
    "en": ("Northwind Logistics", "Harbour & Sons", "Bluefield Energy", "Kestrel Pharma"),
    "zh-CN": ("星河物流", "东江制造", "禾田食品", "云岭医药"),
}

"""A ruleset under test: runs texts as transactions on the model alone, in nft's words."""

from __future__ import annotations

from userfw.nft.location import NftErrors
from userfw.nft.parser import parse
from userfw.ruleset.backend import ModelBackend
from userfw.ruleset.model import Ruleset
from userfw.ruleset.transaction import Plan, plan


class Bench:
    """`run` commits and returns the plan; `errors` are the messages of a run that must fail and change nothing."""

    def __init__(self, text: str = "") -> None:
        self.rules = Ruleset()
        if text:
            self.run(text)

    def plan(self, text: str, client: object = None) -> Plan:
        return plan(self.rules, parse(text), ModelBackend(), client=client)

    def run(self, text: str, client: object = None) -> Plan:
        made = self.plan(text, client)
        for overlay in made.overlays:
            overlay.apply()
        self.rules = made.rules
        return made

    def errors(self, text: str, client: object = None) -> list[str]:
        try:
            self.plan(text, client)
        except NftErrors as problems:
            return [problem.message for problem in problems.errors]
        raise AssertionError(f"accepted: {text}")

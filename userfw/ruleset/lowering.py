"""Where rules become expressions: the seam to `nft.lower`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from userfw.ruleset.draft import Draft
    from userfw.ruleset.language import LanguageBackend
    from userfw.ruleset.model import Chain, Rule, Table


def lowered(backend: LanguageBackend, draft: Draft, table: Table, chain: Chain, rule: Rule) -> tuple[list[Any], dict[str, Any]]:
    return [], {}

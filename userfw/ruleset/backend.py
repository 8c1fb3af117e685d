"""The seam between the ruleset and what checks, lowers and runs it.

Laws:
- The transaction knows names, handles, order and use; a `Backend` knows the language and the engine.
- Every method builds new things and changes nothing that packets see; `commit` alone does, in time proportional to what
  changed. A method that cannot do its work raises `NftErrors`, and the transaction is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from userfw.nft.syntax import Command, SetElemExpr

if TYPE_CHECKING:
    from userfw.nft.element_run import ElementRun
    from userfw.ruleset.bulk import EngineElements
    from userfw.ruleset.draft import Draft
    from userfw.ruleset.elements import Element, Overlay
    from userfw.ruleset.model import Chain, Flowtable, Object, Rule, Set, Table


class Backend(Protocol):
    """What a transaction asks of the language and the engine."""

    def check(self, draft: Draft, command: Command) -> Command:
        """The checked form of a command; names are looked up in `draft`."""

    def chain(self, draft: Draft, table: Table, chain: Chain) -> None:
        """Give a new chain its `engine`."""

    def rule(self, draft: Draft, table: Table, chain: Chain, rule: Rule) -> None:
        """Give a new rule its `program`."""

    def pattern(self, draft: Draft, table: Table, chain: Chain, form: Any) -> Any:
        """What rules of this form (`nft.rule_form`) come to in this chain; None if each must be looked at by itself."""

    def rule_of(self, pattern: Any, node: Any, handle: int) -> Rule | None:
        """A rule of a pattern, with its `program`; None if it must be looked at by itself."""

    def set(self, draft: Draft, table: Table, entry: Set) -> None:
        """Give a new set its `engine`, without elements."""

    def element(self, draft: Draft, table: Table, entry: Set, node: SetElemExpr) -> Any:
        """What the engine's set will hold for one element."""

    def plain_elements(self, entry: Set, nodes: list[SetElemExpr]) -> list[Any]:
        """`element` of many that refer to nothing and keep no state."""

    def elements(self, entry: Set) -> EngineElements | None:
        """What answers for the elements of a set that the engine alone keeps; None for a set of which the ruleset keeps them."""

    def add_run(self, entry: Set, overlay: Overlay, run: ElementRun) -> ElementRun | None:
        """Add plain elements to a copy of such a set, on which the overlay then stands. What of them is new; None if some overlap
        elements that are there."""

    def run_of(self, entry: Set) -> ElementRun | None:
        """All elements of such a set, if they are many and plain."""

    def set_size(self, entry: Set) -> None:
        """Tell the engine of a new size."""

    def reserve(self, draft: Draft, entry: Set, overlay: Overlay, element: Element) -> None:
        """Refuse an element of concatenated ranges that overlaps another (EEXIST)."""

    def fill(self, entry: Set, overlay: Overlay) -> Iterator[None]:
        """Put the elements of a new set into its `engine`. Yields between slices."""

    def build_aside(self, entry: Set, overlay: Overlay) -> Iterator[None]:
        """Make many changes to a copy of a set that packets use; the commit swaps it in. Yields between slices."""

    def object(self, draft: Draft, table: Table, entry: Object) -> None:
        """Give a new object its `engine`."""

    def update_object(self, draft: Draft, table: Table, old: Object, new: Object) -> None:
        """An object is added again with another body; `new.engine` is `old.engine`, changed at commit."""

    def flowtable(self, draft: Draft, table: Table, entry: Flowtable) -> None:
        """Give a new flowtable its `engine`."""

    def refusal(self, table: Table, chain: Chain, rule: Rule, base: Chain) -> int:
        """0, or the errno with which a rule is refused below a base chain (type and hook)."""

    def live_element(self, draft: Draft, table: Table, entry: Set, node: SetElemExpr) -> Element | None:
        """The element of a live set (dynamic, timeout) with the key of `node`, if the engine has it."""

    def live_elements(self, entry: Set) -> list[Element]:
        """All elements that the engine has of a live set."""

    def element_block(self, entry: Set, element: Element, now: int) -> SetElemExpr:
        """An element's tree with the state of now."""

    def told_element(self, entry: Set, element: Element, new: bool) -> SetElemExpr:
        """The tree of an element for its event: with the state that it begins with if it is new, else with that of now."""

    def reset(self, draft: Draft, command: Command) -> None:
        """Zero the state that a `reset` command names; called after its answer was made, at commit."""

    def judge(self, draft: Draft) -> None:
        """Last objections of what runs rules elsewhere, before the commit; changes nothing. NftError."""

    def commit(self, draft: Draft) -> None:
        """Make it so for the packets. Cannot fail."""


class ModelBackend:
    """A backend without language and engine: trees are taken as they are. For tests of the model alone."""

    def check(self, draft: Draft, command: Command) -> Command:
        return command

    def chain(self, draft: Draft, table: Table, chain: Chain) -> None:
        pass

    def rule(self, draft: Draft, table: Table, chain: Chain, rule: Rule) -> None:
        pass

    def pattern(self, draft: Draft, table: Table, chain: Chain, form: Any) -> Any:
        return None

    def rule_of(self, pattern: Any, node: Any, handle: int) -> Rule | None:
        return None

    def set(self, draft: Draft, table: Table, entry: Set) -> None:
        pass

    def element(self, draft: Draft, table: Table, entry: Set, node: SetElemExpr) -> Any:
        return None

    def plain_elements(self, entry: Set, nodes: list[SetElemExpr]) -> list[Any]:
        return [None] * len(nodes)

    def elements(self, entry: Set) -> EngineElements | None:
        return None

    def add_run(self, entry: Set, overlay: Overlay, run: ElementRun) -> ElementRun | None:
        return None

    def run_of(self, entry: Set) -> ElementRun | None:
        return None

    def set_size(self, entry: Set) -> None:
        pass

    def reserve(self, draft: Draft, entry: Set, overlay: Overlay, element: Element) -> None:
        pass

    def fill(self, entry: Set, overlay: Overlay) -> Iterator[None]:
        yield from ()

    def build_aside(self, entry: Set, overlay: Overlay) -> Iterator[None]:
        yield from ()

    def object(self, draft: Draft, table: Table, entry: Object) -> None:
        pass

    def update_object(self, draft: Draft, table: Table, old: Object, new: Object) -> None:
        pass

    def flowtable(self, draft: Draft, table: Table, entry: Flowtable) -> None:
        pass

    def refusal(self, table: Table, chain: Chain, rule: Rule, base: Chain) -> int:
        return 0

    def live_element(self, draft: Draft, table: Table, entry: Set, node: SetElemExpr) -> Element | None:
        return None

    def live_elements(self, entry: Set) -> list[Element]:
        return []

    def element_block(self, entry: Set, element: Element, now: int) -> SetElemExpr:
        return element.node

    def told_element(self, entry: Set, element: Element, new: bool) -> SetElemExpr:
        return element.node

    def reset(self, draft: Draft, command: Command) -> None:
        pass

    def judge(self, draft: Draft) -> None:
        return

    def commit(self, draft: Draft) -> None:
        pass

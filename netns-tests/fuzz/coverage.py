"""What a campaign must have covered, and what is excused, with the reason.

Laws
- A cell (operation, family, hook) that both routers loaded and no packet reached fails a complete campaign, unless it is excused.
- An excuse for a cell that was reached fails too: the table can only shrink.
"""

from .campaign import BOTH_AT_MOST, Account
from .cells import UNREACHED, universe
from .engine import EngineTarget
from .fragments import FRAGMENTS
from .probe import operations_of, refused_everywhere
from .rules import FIELDS

EXCUSED: dict[tuple[str, str, str], str] = dict.fromkeys(
    (("synproxy: plain", "ip6", ""), ("objref: synproxy", "ip6", "")),
    "the laboratory's kernel does not answer a SYN of IPv6; test_synproxy.py compares where one does")
"""Cells that are loaded and never met by a packet, and why; an empty family or hook stands for all of them."""

EVERYDAY = {"masquerade", "snat", "dnat", "redirect", "reject", "jump", "goto", "vmap", "notrack", "limit", "quota"}
EVERYDAY_HOOKS = {"prerouting", "input", "forward", "postrouting", "ingress"}


def excuse(cell: tuple[str, str, str]) -> tuple[str, str, str] | None:
    """The row of the table that excuses a cell."""
    return next((row for row in EXCUSED if row[0] == cell[0] and row[1] in ("", cell[1]) and row[2] in ("", cell[2])), None)


def verdict(account: Account, strict: bool) -> list[str]:
    """What is wrong with a campaign, in words; `strict`: it was long enough to have visited everything."""
    problems = [f"{len(account.findings)} unexplained differences"] if account.findings else []
    problems += account.accepted.disagree
    if account.both > max(2, account.rulesets * BOTH_AT_MOST):
        problems.append(f"with {account.both} rulesets the kernel does not agree with itself: too many")
    if account.both + account.explained.total() > account.rulesets / 20:
        problems.append("more than one case in twenty is explained away")
    ledger = account.ledger
    problems += [f"{name} is reached: take it off the table UNREACHED" for name in sorted(set(UNREACHED) & ledger.operations())]
    if not strict:
        return problems
    problems += missing(account)
    for cell in ledger.uncovered():
        if not excuse(cell):
            problems.append(f"no packet reached {' '.join(cell)}")
    met = {excuse(cell) for cell in ledger.reached}
    problems += [f"packets reach {row}: take it off the table EXCUSED" for row in EXCUSED if row in met]
    drawn = {expression for expression, _, _ in account.drawn}
    wanted = {field.name for field in FIELDS} | EVERYDAY
    problems += [f"the everyday generator never drew {name}" for name in sorted(wanted - drawn)]
    problems += [f"the everyday generator drew nothing at {hook}"
                 for hook in sorted(EVERYDAY_HOOKS - {hook for _, _, hook in account.drawn})]
    return problems


def missing(account: Account) -> list[str]:
    """Operations that no packet reached anywhere, but for those of which the kernel refused every statement at every place."""
    refused = refused_everywhere(account.accepted, operations_of(EngineTarget(), FRAGMENTS))
    left = {cell[0] for cell in universe()} - account.ledger.operations() - set(refused) - set(UNREACHED) \
        - {row[0] for row in EXCUSED if not row[1] and not row[2]}
    return [f"no packet reached {name} anywhere, and the kernel does not refuse it" for name in sorted(left)]


FLOOR = 3700
"""Cells that the small campaign of CI reaches at least (3,766 when this was written); it can only grow."""


def floor(account: Account) -> list[str]:
    """What even a small campaign of one round must have reached: every operation somewhere, and so many cells."""
    reached = len(account.ledger.reached)
    problems = [] if reached >= FLOOR else [f"packets reached {reached} cells only, not {FLOOR}"]
    return problems + missing(account)

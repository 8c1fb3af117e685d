"""Transactions: random batches of commands, in the kernel through nft and in userfw's ruleset: both accept or refuse, both list
the same.

USERFW_TRANSACTION_RUNS is how many rulesets are grown (default 12); the seed is fixed. Handles are not compared: the kernel
uses some up for transactions that fail.
"""

import os
import random
from collections.abc import Iterator

import pytest
from lab import netns

from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options

RUNS = int(os.environ.get("USERFW_TRANSACTION_RUNS", "12"))
STEPS = 20
SEED = 20
RULES = (
    "accept", "counter drop", "jump a", "goto b", "jump c", "tcp dport @s", "ip saddr vmap @m", "counter name k", "quota name q",
    "ct state new", "tcp dport { 1, 2 } jump c", "tcp dport { 1, 2, 9-12 } accept", "drop", "return", "masquerade",
    "limit rate 4/minute accept", "jump nope", "ip saddr @nope",
)  # fmt: skip
SETUP = """
table ip t {
  set s { type inet_service; flags interval;
  }
  map m { type ipv4_addr : verdict;
  }
  counter k { }
  quota q { 25 mbytes;
  }
  chain a { type filter hook forward priority 0;
  }
  chain b { }
  chain c { }
}
"""


class Commands:
    """A source of commands, most of them about what is probably there."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def one(self, *choices: str) -> str:
        return self.rng.choice(choices)

    def number(self) -> int:
        return self.rng.randint(0, 12)

    def elements(self) -> str:
        parts = []
        for _ in range(self.rng.randint(1, 3)):
            low, high = sorted((self.number(), self.number() + 1))
            parts.append(str(low) if self.rng.random() < 0.6 else f"{low}-{high}")
        return "{ " + ", ".join(parts) + " }"

    def base(self) -> str:
        kind, hook = self.one("filter", "nat", "route"), self.one("prerouting", "input", "forward", "output", "postrouting")
        any_hook = f"{{ type {kind} hook {hook} priority {self.number() - 6}; }}"
        return self.one("", "", any_hook, f"{{ type filter hook forward priority 0; policy {self.one('accept', 'drop')}; }}")

    def command(self) -> str:
        one, number = self.one, self.number
        t, c = one("t", "t", "t", "t", "u"), one("a", "b", "c")
        table = [
            (5, f"{one('add', 'create')} table ip {t} {one('', '', '{ flags dormant; }')}"),
            (2, f"delete table ip {one('u', 't', 'nope')}"),
            (10, f"{one('add', 'add', 'create')} chain ip {t} {c} {self.base()}"),
            (5, f"delete chain ip {t} {c}"),
            (2, f"flush {one(f'chain ip {t} {c}', f'table ip {t}')}"),
            (3, f"rename chain ip {t} {c} {one('a', 'b', 'c', 'd')}"),
            (32, f"{one('add', 'insert')} rule ip {t} {c} {one('', '', '', f'index {self.rng.randint(0, 3)}')} {one(*RULES)}"),
            (1, f"delete rule ip {t} {c} handle 999"),
            (4, f"{one('add', 'create')} set ip {t} s {{ type inet_service; flags interval; }}"),
            (2, f"{one('add', 'create')} map ip {t} m {{ type ipv4_addr : verdict; }}"),
            (2, f"delete {one('set', 'map')} ip {t} {one('s', 'm')}"),
            (14, f"{one('add', 'add', 'create', 'delete')} element ip {t} s {self.elements()}"),
            (4, f"add element ip {t} m {{ 10.0.0.{number()} : {one('accept', 'jump a', 'jump c', 'drop')} }}"),
            (2, f"delete element ip {t} m {{ 10.0.0.{number()} }}"),
            (2, f"flush {one('set', 'map')} ip {t} {one('s', 'm')}"),
            (3, f"{one('add', 'create')} {one(f'counter ip {t} k', f'quota ip {t} q 25 mbytes')}"),
            (3, f"delete {one(f'counter ip {t} k', f'quota ip {t} q')}"),
        ]
        return self.rng.choices([text for _, text in table], [weight for weight, _ in table])[0]

    def batch(self) -> str:
        return "".join(self.command() + "\n" for _ in range(self.rng.choice((1, 1, 1, 2, 3))))


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"uf{os.getpid()}-rules"
    netns.create(name)
    yield name
    netns.delete(name)


def plain(listing: str) -> str:
    """A listing without what nft 1.0.6 prints in another way."""
    return listing.replace(" burst 5 packets", "")


@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
def test_the_kernel_and_userfw_agree(namespace: str, seed: int) -> None:
    commands = Commands(seed)
    rules = RulesetManager()
    netns.run(["nft", "-f", "-"], ns=namespace, text="flush ruleset\n" + SETUP)
    assert rules.execute(SETUP).status == 0
    for step in range(STEPS):
        batch = commands.batch()
        kernel = netns.run(["nft", "-f", "-"], ns=namespace, text=batch, check=False)
        ours = rules.execute(batch, Options(filename="/dev/stdin"))
        where = f"seed {seed} step {step}:\n{batch}nft: {kernel.stderr}userfw: {ours.errors}"
        assert bool(kernel.returncode) == bool(ours.status), where
        listing = netns.run(["nft", "list", "ruleset"], ns=namespace).stdout
        assert plain(rules.execute("list ruleset").output) == plain(listing), where

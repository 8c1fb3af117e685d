"""Small rulesets that many tests share."""

from .families import Family


def nat(fam: Family, pre: str = "", post: str = "") -> str:
    """A NAT table of one family with these rules at prerouting and postrouting."""
    return f"""table {fam.name} nat {{
        chain pre {{ type nat hook prerouting priority dstnat; {pre}\n}}
        chain post {{ type nat hook postrouting priority srcnat; {post}\n}}
    }}\n"""


def masquerade(fam: Family) -> str:
    """Masquerade everything that leaves by wan."""
    return nat(fam, post='oifname "wan" counter masquerade')


def forward(rules: str, sets: str = "", policy: str = "accept", family: str = "inet", priority: str = "0") -> str:
    """A table `t` with a chain `c` of these rules at forward."""
    return f"table {family} t {{\n{sets}\nchain c {{ type filter hook forward priority {priority}; " \
           f"policy {policy};\n{rules}\n}}\n}}\n"


def at(address: str, port: str | int) -> str:
    """`address:port` as nft writes it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

"""iptables to nft: the command lines of iptables, ip6tables, ebtables and arptables as nft commands.

Laws:
- Text to text: nothing here reads a file, a clock or a ruleset; users and groups are looked up through what the caller gives.
- An extension is a row of data (``matches.py``, ``targets.py``, ``bridge.py``): its options, what their arguments may be, the nft
  text of each. What a row cannot say is a small function beside it. An extension without a translation says so by having none.
- A family is data (``family.py``): no twins for IPv4 and IPv6.
- A wrong command line raises ``UsageError`` in iptables' words; nothing else is ever raised, whatever the text.

The wording and the translations are those of iptables 1.8 (iptables-translate(8), iptables-extensions(8), ebtables-nft(8)).
"""

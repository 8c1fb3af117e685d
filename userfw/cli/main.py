"""`userfw`: the command line. It parses arguments and prints answers; everything is done by the daemon.

Laws: what a command needs is imported when it runs, so `--help` is instant. Errors are one line on standard error, without a
traceback. Exit codes: 0 done, 1 refused or failed, 2 usage or configuration, 3 the daemon cannot be reached.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from typing import Any

from userfw import __version__

OK, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3
TRANSLATORS = (
    "iptables-translate", "ip6tables-translate", "ebtables-translate", "arptables-translate", "iptables-restore-translate",
    "ip6tables-restore-translate", "ebtables-restore-translate", "arptables-restore-translate",
)  # fmt: skip


def common(parser: argparse.ArgumentParser) -> None:
    """Options that every command has."""
    parser.add_argument("--socket", metavar="PATH", help="the daemon's control socket (or USERFW_SOCKET)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def build_parser() -> argparse.ArgumentParser:
    """Every command and its options."""
    from userfw.cli import conntrack

    parser = argparse.ArgumentParser(prog="userfw", description="netfilter in user space: run the daemon, and ask it.")
    parser.add_argument("--version", action="version", version=f"userfw {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run the daemon")
    run.add_argument("-c", "--config", metavar="FILE", default="/etc/userfw/userfw.toml", help="default: %(default)s")
    run.add_argument("--check", action="store_true", help="check the configuration and exit")

    for name, text in (
        ("status", "what the daemon is doing"),
        ("reload", "read the configuration again; connections stay"),
        ("stop", "stop the daemon, as SIGTERM does"),
        ("neighbours", "hosts on the gateway's networks: address, state, link-layer address"),
        ("bridge", "bridges: ports with their VLANs, and where addresses were seen"),
        ("queue", "queues of `queue` statements: who listens, what waits, what was dropped"),
        ("metrics", "counters in Prometheus' text format"),
    ):
        common(commands.add_parser(name, help=text, description=text))

    ports = commands.add_parser("ports", help="the ports: link, addresses, counters", description="The ports of the gateway.")
    ports.add_argument("-e", "--ethtool", action="store_true", help="link, channels, rings, features of their interfaces")
    common(ports)

    drops = commands.add_parser("drops", help="why packets were dropped", description="Packets dropped, by reason.")
    drops.add_argument("-a", "--all", action="store_true", help="also reasons that never occurred")
    drops.add_argument("-p", "--ports", action="store_true", help="for each port")
    common(drops)

    text = "flows that devices handle, and why others are not"
    offload = commands.add_parser("offload", help=text, description=text)
    offload.add_argument("-f", "--flows", action="store_true", help="each flow of the flowtables with `flags offload`")
    common(offload)

    conntrack.add_parser(commands, common)

    follow = commands.add_parser("log", help="follow what log statements say", description="Packets logged by rules, as they come.")
    follow.add_argument("group", type=int, nargs="?", metavar="GROUP", help="an nflog group instead of the system log")
    follow.add_argument("-w", "--write", metavar="FILE", help="write the group's packets into a pcap file")
    follow.add_argument("-s", "--snaplen", type=int, default=65535, metavar="BYTES", help="bytes of each packet, at most")
    follow.add_argument("-q", "--threshold", type=int, default=1, metavar="N", help="messages that come together")
    follow.add_argument("-c", "--count", type=int, default=0, metavar="N", help="stop after so many")
    common(follow)

    commands.add_parser("nft", help="rules, with nft's own options and commands", add_help=False)
    for name in TRANSLATORS:
        what = "saved rules" if "restore" in name else "a command line"
        commands.add_parser(name, help=f"{what} of {name.partition('-')[0]} as nft commands", add_help=False)

    completion = commands.add_parser("completion", help="print a completion script for a shell")
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["nft"]:
        from userfw.cli.nft import main as nft

        return int(nft(argv[1:]))
    if argv and argv[0] in TRANSLATORS:
        from userfw.cli.iptables import main as iptables

        return iptables(argv[0], argv[1:])
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        return HANDLERS[args.command](args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED


def ask(args: argparse.Namespace, show: Callable[[Any], None], command: str, **values: Any) -> int:
    """Ask the daemon and show its answer: as JSON with --json, else by `show`."""
    from userfw.client.control import ControlClient, ControlError

    try:
        with ControlClient(args.socket) as client:
            answer = client.request(command, **values)
    except ControlError as error:
        return failed(error)
    if args.json:
        print_json(answer)
    else:
        show(answer)
    return OK


def failed(error: Any) -> int:
    """Say what the daemon (or the way to it) said; the exit code for it."""
    print(f"userfw: {error}", file=sys.stderr)
    return {"connection": UNREACHABLE, "usage": USAGE, "unknown": USAGE}.get(error.code, FAILED)


def print_json(answer: Any) -> None:
    """One JSON document."""
    import json

    print(json.dumps(answer, indent=2))


def table(rows: list[list[Any]], header: list[str]) -> None:
    """Columns, the first to the left and numbers to the right."""
    texts = [header] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in texts) for i in range(len(header))]
    numeric = [all(isinstance(row[i], int) for row in rows) and bool(rows) for i in range(len(header))]
    for row in texts:
        cells = [cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, numeric, strict=True)]
        print("  ".join(cells).rstrip())


# -- the commands


def _run(args: argparse.Namespace) -> int:
    from userfw.daemon.main import run

    return run(args.config, args.check)


def _status(args: argparse.Namespace) -> int:
    def show(answer: Any) -> None:
        how = "compiled" if answer["compiled"] else "INTERPRETED: the packet path is not compiled, expect a hundredth of the speed"
        print(f"userfw {answer['version']}, {how}")
        print(f"pid {answer['pid']}, up {duration(answer['uptime'])}, configuration {answer['config']}")
        print(f"ports        {answer['ports']}")
        print(f"packets      {answer['packets']}")
        print(f"drops        {answer['drops']}")
        if "connections" in answer:
            print(f"connections  {answer['connections']} of {answer['connections_max']}")
        print("rungs        " + ", ".join(f"{name} {count}" for name, count in answer["rungs"].items()))
        print(f"ruleset      generation {answer['generation']}")
        print(f"neighbours   {answer['neighbours']['entries']}")
        print(f"routes       {answer['routes']}")
        print(f"memory       {answer['memory_kb'] // 1024} MB")
        for what, count in answer["faults"].items():
            print(f"FAULT        {what}: {count}")

    return ask(args, show, "status")


def _ports(args: argparse.Namespace) -> int:
    def show(answer: Any) -> None:
        if args.ethtool:
            for port in answer:
                _settings(port["name"], port.get("ethtool"))
            return
        rows = [
            [p["name"], p["type"], "up" if p["up"] else "down", p["mtu"], p["mac"] or "-", p["rx_packets"], p["rx_bytes"],
             p["tx_packets"], p["tx_bytes"], p["rx_dropped"] + p["tx_dropped"], " ".join(p["addresses"]) or "-",
             _card(p.get("ethtool"))]
            for p in answer
        ]  # fmt: skip
        table(rows, ["NAME", "TYPE", "LINK", "MTU", "MAC", "RX", "BYTES", "TX", "BYTES", "DROPS", "ADDRESSES", "CARD"])

    return ask(args, show, "ports")


def _settings(name: str, ethtool: Any) -> None:
    """All that ethtool tells of an interface; a feature in brackets cannot be changed."""
    print(f"{name}:" if ethtool else f"{name}: no interface that ethtool knows")
    if not ethtool:
        return
    for what in ("link", "channels", "rings"):
        print(f"  {what:9} {', '.join(f'{key} {_word(value)}' for key, value in ethtool[what].items()) or '-'}")
    for state, what in ((True, "features"), (False, "")):
        names = [name for name, on in sorted(ethtool["features"].items()) if on is state]
        listed = " ".join(f"[{name}]" if name in ethtool["fixed"] else name for name in names)
        print(f"  {what:9} {_word(state)}: {listed or '-'}")
    for rule in ethtool.get("ntuple", ()):
        print(f"  {'ntuple':9} {', '.join(f'{key} {_word(value)}' for key, value in rule.items())}")


def _word(value: Any) -> Any:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _card(ethtool: Any) -> str:
    """An interface's speed, queues and what of it offload needs, in a few words."""
    if not ethtool:
        return "-"
    words = []
    speed = ethtool["link"].get("speed")
    if speed:
        words.append(f"{speed // 1000}G" if speed % 1000 == 0 else f"{speed}M")
    queues = ethtool["channels"].get("combined") or ethtool["channels"].get("rx")
    if queues:
        words.append(f"{queues}q")
    if ethtool["features"].get("hw-tc-offload"):
        words.append("hw-tc")
    if ethtool.get("ntuple"):
        words.append(f"{len(ethtool['ntuple'])} steered")
    return ",".join(words) or "-"


def _offload(args: argparse.Namespace) -> int:
    def show(answer: Any) -> None:
        rows = [
            [d["device"], d["driver"], d["where"], d["capacity"] or "-", " ".join(f"IPv{n}" for n in d["nat"]) or "-",
             " ".join(d["protocols"]), "yes" if d["vlans"] else "no", d.get("because", "")]
            for d in answer["devices"]
        ]  # fmt: skip
        table(rows, ["DEVICE", "DRIVER", "WHERE", "RULES", "NAT", "PROTOCOLS", "VLAN", "BECAUSE"])
        for name, packets in answer["rungs"].items():
            flows = f", {answer['flows'][name]} flows" if name in answer["flows"] else ""
            print(f"{name:12} {packets} packets{flows}")
        limits = f"offered after {answer['threshold']} packets, {answer['rate']} a second"
        print(f"waiting      {answer['flows']['waiting']} flows, {limits}")
        for reason, count in answer["failures"].items():
            print(f"in software  {count} times: {reason}")
        for reason, count in answer["withdrawn"].items():
            print(f"taken back   {count} flows: {reason}")
        if answer.get("filters"):
            rows = [
                [f["device"], f["driver"], f"{f['table']} {f['chain']} {f['handle']}", f["verdict"], f["packets"], f["bytes"]]
                for f in answer["filters"]
            ]
            table(rows, ["DEVICE", "DRIVER", "RULE", "VERDICT", "PACKETS", "BYTES"])
            print(f"{answer['filters_dropped']} packets were dropped by hardware filters")
        if "list" in answer:
            rows = [[f["state"], f["packets"], f["original"], f["reply"], f["reason"]] for f in answer["list"]]
            table(rows, ["STATE", "PACKETS", "ORIGINAL", "REPLY", "REASON"])

    return ask(args, show, "offload", flows=args.flows)


def _drops(args: argparse.Namespace) -> int:
    def rows(counts: Any) -> None:
        table([[d["packets"], d["reason"], d["description"]] for d in counts], ["PACKETS", "REASON", ""])

    def show(answer: Any) -> None:
        if answer["drops"]:
            rows(answer["drops"])
        else:
            print("no packet was dropped")
        for name, counts in answer.get("ports", {}).items():
            print(f"\n{name}")
            rows(counts)

    return ask(args, show, "drops", all=args.all, ports=args.ports)


def _neighbours(args: argparse.Namespace) -> int:
    def show(answer: Any) -> None:
        rows = [[n["address"], n["device"], n["mac"], n["state"], n["used"]] for n in answer]
        table(rows, ["ADDRESS", "PORT", "MAC", "STATE", "USED"])

    return ask(args, show, "neighbours")


def _bridge(args: argparse.Namespace) -> int:
    def show(answer: Any) -> None:
        for bridge in answer:
            filters = "  VLAN filtering" if bridge["vlan_filtering"] else ""
            print(f"{bridge['name']}  {bridge['mac']}  {'up' if bridge['up'] else 'down'}{filters}")
            words = ("learning", "flood", "hairpin", "isolated")
            rows = [
                [p["name"], "up" if p["up"] else "down", *([p["pvid"], vlans(p)] if bridge["vlan_filtering"] else ["-", "-"]),
                 " ".join(word for word in words if p[word])]
                for p in bridge["ports"]
            ]  # fmt: skip
            table(rows, ["PORT", "LINK", "PVID", "VLANS", "FLAGS"])
            rows = [[e["mac"], e["vlan"], e["port"], "static" if e["static"] else f"{e['age']:.0f} s"] for e in bridge["fdb"]]
            table(rows, ["ADDRESS", "VLAN", "PORT", "AGE"])

    def vlans(port: Any) -> str:
        return " ".join(f"{vid}{'' if vid in port['untagged'] else 't'}" for vid in port["vlans"])

    return ask(args, show, "bridges")


def _queue(args: argparse.Namespace) -> int:
    def show(answer: Any) -> None:
        rows = [
            [q["queue"], q["listener"] or "-", q["held"], q["length"], q["total"], q["dropped_full"], q["accepted_full"],
             q["dropped_listener"]]
            for q in answer
        ]  # fmt: skip
        table(rows, ["QUEUE", "LISTENER", "HELD", "LENGTH", "TOTAL", "FULL", "PASSED", "LOST"])

    return ask(args, show, "queues")


def _metrics(args: argparse.Namespace) -> int:
    return ask(args, lambda answer: print(answer["text"], end=""), "metrics")


def _log(args: argparse.Namespace) -> int:
    import json

    from userfw.client.control import ControlClient, ControlError
    from userfw.client.nflog import NflogWriter

    if args.write and args.group is None:
        print("userfw: -w needs a group: lines of the system log carry no packet", file=sys.stderr)
        return USAGE
    try:
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(ControlClient(args.socket))
            writer = NflogWriter(stack.enter_context(open(args.write, "wb"))) if args.write else None
            events = client.stream("log", group=args.group, threshold=args.threshold, snaplen=args.snaplen)
            for number, event in enumerate(events, 1):
                if "lost" in event:
                    print(f"userfw: {event['lost']} messages lost", file=sys.stderr)
                elif writer is not None:
                    writer.write(event)
                else:
                    print(json.dumps(event) if args.json else event["text"], flush=True)
                if number == args.count:
                    break
    except ControlError as error:
        return failed(error)
    except OSError as error:
        print(f"userfw: {args.write}: {error.strerror}", file=sys.stderr)
        return FAILED
    return OK


def _reload(args: argparse.Namespace) -> int:
    return ask(args, lambda answer: print(f"reloaded {answer['config']}"), "reload")


def _stop(args: argparse.Namespace) -> int:
    return ask(args, lambda answer: None, "stop")


def _conntrack(args: argparse.Namespace) -> int:
    from userfw.cli import conntrack

    return conntrack.run(args)


def _completion(args: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        print("userfw: completion scripts need shtab (pip install 'userfw[completion]')", file=sys.stderr)
        return FAILED
    print(shtab.complete(build_parser(), args.shell))
    return OK


def duration(seconds: float) -> str:
    """`1d2h3m4s`, without leading zeros."""
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    return "".join(f"{n}{unit}" for n, unit in parts if n) or "0s"


HANDLERS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "status": _status,
    "ports": _ports,
    "offload": _offload,
    "drops": _drops,
    "reload": _reload,
    "stop": _stop,
    "conntrack": _conntrack,
    "completion": _completion,
    "neighbours": _neighbours,
    "metrics": _metrics,
    "queue": _queue,
    "bridge": _bridge,
    "log": _log,
}

if __name__ == "__main__":
    sys.exit(main())

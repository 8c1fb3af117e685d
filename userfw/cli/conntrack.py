"""`userfw conntrack`: the connection table, with the commands, options and lines of conntrack(8).

Both spellings work: `userfw conntrack list -p tcp` and `userfw conntrack -L -p tcp`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

VERBS = ("list", "events", "delete", "flush", "count", "stats")
SHORT = {"L": "list", "E": "events", "D": "delete", "F": "flush", "C": "count", "S": "stats"}
OUTPUT = ("extended", "id", "timestamp", "labels")


def add_parser(commands: Any, common: Callable[[argparse.ArgumentParser], None]) -> None:
    """The command and all its options."""
    text = "The connection table: list, follow, delete; options are those of conntrack(8)."
    parser = commands.add_parser("conntrack", help="the connection table", description=text)
    common(parser)
    parser.add_argument("verb", nargs="?", choices=VERBS, help="what to do; list is the default")
    for letter, verb in SHORT.items():
        parser.add_argument(
            f"-{letter}", f"--{'dump' if verb == 'list' else verb if verb != 'events' else 'event'}",
            dest="verb_option", action="store_const", const=verb, help=f"the same as {verb}",
        )  # fmt: skip
    choose = parser.add_argument_group("which connections")
    choose.add_argument("-f", "--family", choices=("ipv4", "ipv6"))
    choose.add_argument("-p", "--proto", metavar="PROTO", help="tcp, udp, icmp, …, or a number")
    choose.add_argument("-s", "--src", "--orig-src", metavar="ADDR", help="original source, a prefix works")
    choose.add_argument("-d", "--dst", "--orig-dst", metavar="ADDR", help="original destination")
    choose.add_argument("-r", "--reply-src", metavar="ADDR")
    choose.add_argument("-q", "--reply-dst", metavar="ADDR")
    choose.add_argument("--sport", "--orig-port-src", metavar="PORT", type=_port)
    choose.add_argument("--dport", "--orig-port-dst", metavar="PORT", type=_port)
    choose.add_argument("--reply-port-src", metavar="PORT", type=_port)
    choose.add_argument("--reply-port-dst", metavar="PORT", type=_port)
    choose.add_argument("--state", metavar="STATE", help="ESTABLISHED, TIME_WAIT, …")
    choose.add_argument("-u", "--status", metavar="STATUS", help="ASSURED, SEEN_REPLY, UNREPLIED, OFFLOAD, comma separated")
    choose.add_argument("-m", "--mark", metavar="MARK[/MASK]", type=_mark)
    choose.add_argument("-w", "--zone", metavar="ZONE", type=_number)
    choose.add_argument("-i", "--id", metavar="ID", type=_number)
    choose.add_argument("-n", "--src-nat", metavar="ADDR", nargs="?", const="", help="only source-NATed ones")
    choose.add_argument("-g", "--dst-nat", metavar="ADDR", nargs="?", const="", help="only destination-NATed ones")
    choose.add_argument("-j", "--any-nat", action="store_true", help="only NATed ones")
    parser.add_argument("-e", "--event-mask", metavar="EVENTS", default="ALL", help="NEW, UPDATES, DESTROY, comma separated")
    parser.add_argument("-o", "--output", metavar="LABELS", default="", help=f"{', '.join(OUTPUT)}, comma separated")


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _port(text: str) -> int:
    port = _number(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return port


def _mark(text: str) -> tuple[int, int]:
    value, _, mask = text.partition("/")
    return _number(value), _number(mask) if mask else 0xFFFFFFFF


def run(args: argparse.Namespace) -> int:
    """Do what the verb says; the exit code."""
    from userfw.cli import main

    verb = args.verb_option or args.verb or "list"
    output = {word for word in args.output.lower().split(",") if word and word != "json"}
    args.json = args.json or "json" in args.output.lower().split(",")
    if unknown := output - set(OUTPUT):
        print(f"userfw: -o {', '.join(sorted(unknown))}: known are {', '.join(OUTPUT)}, json", file=sys.stderr)
        return main.USAGE
    wanted = filter_of(args)
    if verb == "events":
        return _events(args, wanted, output)
    if verb == "flush":
        if wanted:
            print("userfw: flush takes no filter; use delete", file=sys.stderr)
            return main.USAGE
        return main.ask(args, lambda answer: print(f"{answer['flushed']} connections deleted"), "conntrack.flush")
    if verb == "count":
        return main.ask(args, lambda answer: print(answer["count"]), "conntrack.count", filter=wanted)
    if verb == "stats":
        return main.ask(args, lambda answer: print(" ".join(f"{k}={v}" for k, v in answer.items())), "conntrack.stats")

    def show(answer: Any) -> None:
        for entry in answer["entries"]:
            print(line(entry, output))
        if verb == "delete":
            print(f"{answer['deleted']} connections deleted", file=sys.stderr)

    return main.ask(args, show, f"conntrack.{verb}", filter=wanted)


def filter_of(args: argparse.Namespace) -> dict[str, Any]:
    """The options as the daemon's filter; what was not given is left out."""
    wanted: dict[str, Any] = {
        "family": args.family,
        "protocol": args.proto,
        "src": args.src,
        "dst": args.dst,
        "reply_src": args.reply_src,
        "reply_dst": args.reply_dst,
        "sport": args.sport,
        "dport": args.dport,
        "reply_sport": args.reply_port_src,
        "reply_dport": args.reply_port_dst,
        "state": args.state,
        "status": args.status.split(",") if args.status else None,
        "zone": args.zone,
        "id": args.id,
        "src_nat": args.src_nat,
        "dst_nat": args.dst_nat,
        "any_nat": args.any_nat or None,
    }
    if args.mark is not None:
        wanted["mark"], wanted["mark_mask"] = args.mark
    return {name: value for name, value in wanted.items() if value is not None}


def _events(args: argparse.Namespace, wanted: dict[str, Any], output: set[str]) -> int:
    import json

    from userfw.cli import main
    from userfw.client.control import ControlClient, ControlError

    names = {"NEW": "new", "UPDATES": "update", "UPDATE": "update", "DESTROY": "destroy"}
    mask = [word for word in args.event_mask.upper().split(",") if word]
    kinds = sorted(set(names.values())) if "ALL" in mask else [names.get(word, word.lower()) for word in mask]
    try:
        with ControlClient(args.socket) as client:
            for event in client.stream("conntrack.events", filter=wanted, events=kinds):
                if args.json:
                    print(json.dumps(event), flush=True)
                elif "lost" in event:
                    print(f"# {event['lost']} events lost", flush=True)
                else:
                    print(f"{'[' + event['type'].upper() + ']':>9} {line(event, output)}", flush=True)
    except ControlError as error:
        return main.failed(error)
    return main.OK


def line(entry: dict[str, Any], output: set[str]) -> str:
    """One entry as conntrack(8) prints it."""
    words = []
    if "extended" in output:
        words.append(f"{entry['family']:<8} {2 if entry['family'] == 'ipv4' else 10}")
    words.append(f"{entry['protocol']:<8} {entry['protonum']}")
    if entry.get("type") != "destroy":
        if not {"OFFLOAD", "HW_OFFLOAD"} & set(entry["status"]):
            words.append(str(entry["timeout"]))
        if entry["state"] and "OFFLOAD" not in entry["status"]:
            words.append(entry["state"])
    words += _direction(entry["original"])
    if "SEEN_REPLY" not in entry["status"]:
        words.append("[UNREPLIED]")
    words += _direction(entry["reply"])
    if "HW_OFFLOAD" in entry["status"]:
        words.append("[HW_OFFLOAD]")
    elif "OFFLOAD" in entry["status"]:
        words.append("[OFFLOAD]")
    elif "ASSURED" in entry["status"]:
        words.append("[ASSURED]")
    words.append(f"mark={entry['mark']}")
    if entry["zone"]:
        words.append(f"zone={entry['zone']}")
    if "secmark" in entry:
        words.append(f"secmark={entry['secmark']}")
    if "helper" in entry:
        words.append(f"helper={entry['helper']}")
    if "labels" in output and "labels" in entry:
        words.append(f"labels={entry['labels']}")
    if "id" in output:
        words.append(f"id={entry['id']}")
    words.append("use=1")
    return " ".join(words)


def _direction(told: dict[str, Any]) -> list[str]:
    keys = ("src", "dst", "sport", "dport", "type", "code", "id", "srckey", "dstkey", "packets", "bytes", "zone")
    return [f"{key}={told[key]}" for key in keys if key in told]

"""The manual pages, made from what is there already: userfw.8 from the command line's parser, userfw.toml.5 from configuration.md.

`python docs/manual.py FOLDER` writes both. Laws: every command and option is in the page because the parser has it; of Markdown
only what configuration.md uses is known (headings, paragraphs, lists, tables, fenced code, `code`, **bold**, links).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from userfw import __version__
from userfw.cli.main import build_parser

HERE = Path(__file__).parent
EXIT = """.SH EXIT STATUS
0: done. 1: refused or failed. 2: wrong usage or configuration. 3: the daemon cannot be reached.
"""
SIGNALS = """.SH SIGNALS
The daemon stops cleanly at SIGTERM and SIGINT and reads its configuration again at SIGHUP, as \\fBuserfw reload\\fR does.
"""
FILES = """.SH FILES
.TP
.I /etc/userfw/userfw.toml
the configuration, see \\fBuserfw.toml\\fR(5)
.TP
.I /run/userfw/control.sock
where commands reach the daemon; \\fB\\-\\-socket\\fR or the environment's \\fBUSERFW_SOCKET\\fR name another
.TP
.I /var/lib/userfw
connections, kept over a restart (\\fBstate_dir\\fR)
"""


def escape(text: str) -> str:
    """Text for roff, outside of macros."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def inline(text: str) -> str:
    """Code and bold in bold, links as their text."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    parts = re.split(r"`([^`]*)`|\*\*([^*]*)\*\*", text)
    out = []
    for plain, code, bold in zip(parts[0::3], [*parts[1::3], None], [*parts[2::3], None], strict=True):
        out.append(escape(plain))
        if code is not None or bold is not None:
            out.append(f"\\fB{escape(code or bold or '')}\\fR")
    return re.sub(r"(?m)^([.'])", r"\\&\1", "".join(out))


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A tagged paragraph per argument, the help option aside."""
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        value = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
        takes = "" if action.nargs == 0 else f" \\fI{escape(str(value))}\\fR"
        names = ", ".join(f"\\fB{escape(name)}\\fR" for name in action.option_strings)
        told = escape((action.help or "") % {"default": action.default, "prog": parser.prog})
        yield f".TP\n{names}{takes}\n{told}".replace("\n ", "\n")


def command_page() -> str:
    """userfw.8."""
    parser = build_parser()
    lines = [
        f'.TH USERFW 8 "" "userfw {__version__}" "userfw"', ".SH NAME", "userfw \\- netfilter in user space", ".SH SYNOPSIS",
        ".B userfw", "\\fICOMMAND\\fR [\\fIoption\\fR ...]", ".SH DESCRIPTION", escape(parser.description or ""),
        *options(parser), ".SH COMMANDS",
    ]  # fmt: skip
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                lines += [f".SS userfw {escape(name)}", escape(words.get(name, "")) + ".", *options(command)]
                for deeper in (a for a in command._actions if isinstance(a, argparse._SubParsersAction)):
                    for verb, its in deeper.choices.items():
                        lines += [".TP", f"\\fB{escape(name)} {escape(verb)}\\fR", escape(its.description or ""), ".RS",
                                  *options(its), ".RE"]
    return "\n".join(lines) + "\n" + EXIT + SIGNALS + FILES + ".SH SEE ALSO\n.BR userfw.toml (5),\n.BR nft (8)\n"


def markdown(text: str) -> Iterator[str]:
    """The lines of a page's body."""
    verbatim = False
    for line in text.splitlines():
        if line.startswith("```"):
            verbatim = not verbatim
            yield ".PP\n.RS 4\n.nf" if verbatim else ".fi\n.RE"
        elif verbatim:
            yield escape(line) or "\\&"
        elif line.startswith("# "):
            continue
        elif line.startswith("##"):
            level, _, title = line.partition(" ")
            title = title.replace("`", "")
            yield f'.SH "{escape(title)}"' if level == "##" else f'.SS "{escape(title)}"'
        elif re.fullmatch(r"[|\- :]+", line) and "|" in line:
            continue
        elif line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if cells[0] == "key" or not cells[0]:
                continue
            default = f" Default: {inline(cells[-1])}." if len(cells) > 2 else ""
            middle = "; ".join(inline(cell) for cell in cells[1:-1] or cells[1:])
            yield f".TP\n{inline(cells[0])}\n{middle}.{default}"
        elif line.startswith("- "):
            yield f".IP \\(bu 2\n{inline(line[2:])}"
        else:
            yield inline(line.strip()) if line.strip() else ".PP"


def configuration_page() -> str:
    """userfw.toml.5."""
    body = "\n".join(markdown((HERE / "configuration.md").read_text()))
    return (f'.TH USERFW.TOML 5 "" "userfw {__version__}" "userfw"\n.SH NAME\nuserfw.toml \\- configuration of userfw\n'
            f".SH DESCRIPTION\n{body}\n.SH SEE ALSO\n.BR userfw (8)\n")


def main(argv: list[str]) -> int:
    """Write both pages into the folder named."""
    folder = Path(argv[0])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "userfw.8").write_text(command_page())
    (folder / "userfw.toml.5").write_text(configuration_page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

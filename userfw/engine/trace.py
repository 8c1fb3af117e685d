"""Trace: what the machine tells about packets with `pkt.trace` set (`meta nftrace set 1`)."""

from __future__ import annotations

from typing import Any

import cython

if not cython.compiled:
    from userfw.core.packet import Packet
    from userfw.engine.context import Context


class TraceSink:
    """Receives events in order; set `Services.trace` to one."""

    def event(
        self, kind: cython.int, ctx: Context, pkt: Packet, chain: Any, rule: Any, verdict: cython.int, target: Any
    ) -> cython.int:
        """`kind`: TRACE_RULE (a rule was run and gave `verdict`), TRACE_RETURN (the end of a chain that was jumped to, or a return
        verdict in the base chain) or TRACE_POLICY. `target`: the chain of a jump or goto, else None. The packet may be read
        only."""
        raise NotImplementedError

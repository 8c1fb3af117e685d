"""The expressions, one file each (or one for a small family), named after the kernel's `net/netfilter/nft_*.c`."""

from userfw.engine.expressions.bitwise import Bitwise, BitwiseBool, BitwiseShift
from userfw.engine.expressions.byteorder import Byteorder
from userfw.engine.expressions.cmp import Cmp, Range
from userfw.engine.expressions.connlimit import Connlimit
from userfw.engine.expressions.counter import Counter
from userfw.engine.expressions.ct import Ct, CtSet
from userfw.engine.expressions.dup import Dup, Fwd
from userfw.engine.expressions.dynset import Dynset
from userfw.engine.expressions.exthdr import Exthdr, ExthdrReset, ExthdrSet
from userfw.engine.expressions.fib import Fib
from userfw.engine.expressions.flow_offload import FlowOffload
from userfw.engine.expressions.hash import Jhash, Symhash
from userfw.engine.expressions.immediate import Immediate, ImmediateVerdict
from userfw.engine.expressions.inner import Inner
from userfw.engine.expressions.last import Last
from userfw.engine.expressions.limit import Limit
from userfw.engine.expressions.log import Log
from userfw.engine.expressions.lookup import Lookup
from userfw.engine.expressions.meta import Meta, MetaSet
from userfw.engine.expressions.nat import Masq, Nat, Redir
from userfw.engine.expressions.notrack import Notrack
from userfw.engine.expressions.numgen import Numgen
from userfw.engine.expressions.objref import Objref, ObjrefMap
from userfw.engine.expressions.osf import Osf
from userfw.engine.expressions.payload import Payload
from userfw.engine.expressions.payload_set import PayloadSet
from userfw.engine.expressions.queue import Queue
from userfw.engine.expressions.quota import Quota
from userfw.engine.expressions.reject import Reject
from userfw.engine.expressions.rt import Rt
from userfw.engine.expressions.socket import Socket
from userfw.engine.expressions.synproxy import Synproxy
from userfw.engine.expressions.tproxy import Tproxy
from userfw.engine.expressions.tunnel import Tunnel
from userfw.engine.expressions.xfrm import Xfrm

__all__ = [
    "Bitwise",
    "BitwiseBool",
    "BitwiseShift",
    "Byteorder",
    "Cmp",
    "Connlimit",
    "Counter",
    "Ct",
    "CtSet",
    "Dup",
    "Dynset",
    "Exthdr",
    "ExthdrReset",
    "ExthdrSet",
    "Fib",
    "FlowOffload",
    "Fwd",
    "Immediate",
    "ImmediateVerdict",
    "Inner",
    "Jhash",
    "Last",
    "Limit",
    "Log",
    "Lookup",
    "Masq",
    "Meta",
    "MetaSet",
    "Nat",
    "Notrack",
    "Numgen",
    "Objref",
    "ObjrefMap",
    "Osf",
    "Payload",
    "PayloadSet",
    "Queue",
    "Quota",
    "Range",
    "Redir",
    "Reject",
    "Rt",
    "Socket",
    "Symhash",
    "Synproxy",
    "Tproxy",
    "Tunnel",
    "Xfrm",
]

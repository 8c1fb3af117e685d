from userfw.conntrack.table cimport Stats
from userfw.core.clock cimport Clock
from userfw.daemon.shares cimport Share, Shares
from userfw.ports._io cimport Readiness, monotonic_ns, yield_processor
from userfw.ports.base cimport GRO_ALL, IoPort
from userfw.wire.gro cimport Coalescer

cdef enum:
    CROWDED_NS = 100000
    CALM_NS = 50000000

cdef class Poller:
    cdef readonly Clock clock
    cdef readonly object gateway
    cdef readonly Readiness readiness
    cdef readonly list ports, slots, accounts
    cdef readonly Shares shares
    cdef readonly Stats stats
    cdef public int batch
    cdef public unsigned long long busy_ns
    cdef readonly Coalescer coalescer
    cdef readonly unsigned long long spin_ns, slept, calm, spins
    cdef readonly unsigned long long wakeups, rounds, batches, packets, longest_ns
    cpdef int run(self, unsigned long long slice_ns) except -1
    cpdef int poll(self, IoPort port, Share share) except -1
    cdef int _join(self, int ready) except -1

from userfw.core.ahead cimport Lookahead
from userfw.core.const cimport NF_ACCEPT
from userfw.core.hook cimport HookList
from userfw.core.packet cimport Packet

cdef class Pipeline:
    cdef public bint tracked
    cdef readonly Lookahead ahead
    cdef list lists
    cpdef HookList get(self, int family, int hook)
    cpdef int run(self, int family, int hook, Packet pkt) except -1

from userfw.core.const cimport NF_ACCEPT, NF_DROP, NF_REPEAT
from userfw.core.packet cimport Packet

cdef class HookEntry:
    cdef public int priority
    cpdef int run(self, Packet pkt, int hook) except -1

cdef class HookList:
    cdef public list entries
    cdef readonly int size, hook
    cpdef int run(self, Packet pkt) except -1
    cpdef int resume(self, Packet pkt, int position) except -1

from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context

cdef class TraceSink:
    cpdef int event(self, int kind, Context ctx, Packet pkt, object chain, object rule, int verdict, object target) except -1

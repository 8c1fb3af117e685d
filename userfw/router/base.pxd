from userfw.core.clock cimport Clock
from userfw.core.drop cimport DROP_COUNT
from userfw.core.packet cimport Device, Packet, Port
from userfw.engine.services cimport Services
from userfw.router.fib cimport Fib
from userfw.router.settings cimport Settings
from userfw.router.types cimport Dst

cdef class Router(Services):
    cdef public object rng, fault
    cdef public Settings settings
    cdef public Fib routes
    cdef public dict devices, names, device_drops, mib, faults
    cdef unsigned long long[::1] drops
    cdef list pool, given, touched
    cdef Port last_port
    cdef public unsigned int ip_id
    cpdef Packet take(self)
    cpdef int give(self, Packet pkt) except -1
    cpdef int flush(self) except -1
    cpdef int drop(self, Packet pkt, int reason) except -1
    cpdef int count_drop(self, Packet pkt, int reason) except -1
    cdef int _count_at(self, Device device, int reason) except -1
    cpdef unsigned int next_id(self) except? 0xFFFFFFFF
    cpdef int transmit(self, Packet pkt, Device device) except -1
    cpdef int emit(self, Packet pkt) except -1
    cpdef int to_neighbour(self, Packet pkt) except -1
    cpdef int local_out(self, Packet pkt) except -1
    cpdef int send_error(self, Packet pkt, int type, int code, unsigned int info) except -1
    cpdef int run_hooks(self, int family, int hook, Packet pkt) except -1
    cpdef int verdict(self, Packet pkt, int verdict) except -1
    cpdef int enter_port(self, Packet pkt, int reason) except -1
    cpdef int enter_device(self, Packet pkt, int reason) except -1
    cpdef int reread(self, Packet pkt, int reason) except -1
    cpdef int refragment(self, Packet pkt, int mtu) except -1
    cpdef tuple source_for(self, Dst dst, int family)

cpdef Packet compact(Packet pkt)
cpdef int set_start(Packet pkt, Py_ssize_t start) except -1

from userfw.core.const cimport HEADROOM, VNET_GSO_NONE
from userfw.core.drop cimport (
    DROP_DEVICE_DOWN, DROP_NOT_SPECIFIED, DROP_TX_FAILED, DROP_TX_MTU, DROP_TX_QUEUE_FULL,
)
from userfw.core.packet cimport Device, Packet, Port
from userfw.wire.gso cimport segment, segment_count

cdef enum:
    BATCH_BYTES = 262144
    GRO_OFF = 0
    GRO_TCP = 1
    GRO_ALL = 2

cdef class IoPort(Port):
    cdef public str name, kind
    cdef public int fd, queue, gro
    cdef public bint carrier, dead
    cdef public unsigned long long rx_batches, rx_errors, rx_truncated, tx_errors, tx_full, segmented
    cdef public Packet scratch
    cpdef int receive(self, list slots, int budget) except -1
    cpdef int transmit_plain(self, Packet pkt) except -1
    cpdef int transmit_segments(self, Packet pkt) except -1
    cpdef int failed(self, int error) except -1

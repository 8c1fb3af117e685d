# Batches of packets. Explained in batch.py.
from userfw.core.ahead cimport AHEAD, Lookahead
from userfw.core.drop cimport DROP_DEVICE_DOWN, DROP_INTERNAL_ERROR, DROP_NOT_SPECIFIED
from userfw.core.fastpath cimport FastPath
from userfw.core.packet cimport Device, Packet
from userfw.router.path cimport Path

cdef class Batches(Path):
    cdef int reasons[AHEAD]
    cpdef int receive_batch(self, list[Packet] packets, Py_ssize_t n) except -1
    cdef int _ahead(self, list[Packet] packets, Py_ssize_t first, Py_ssize_t n, FastPath fast, Lookahead ahead) except -1

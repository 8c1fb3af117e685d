# Walking TCP options. Explained in options.py.
from userfw.core.packet cimport Packet

cpdef Py_ssize_t next_option(Packet pkt, Py_ssize_t at, Py_ssize_t end) except? -2

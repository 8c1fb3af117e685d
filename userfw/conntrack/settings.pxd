# C layout of the knobs. Names and units are told in settings.py.
cimport cython

@cython.final
cdef class Settings:
    cdef public unsigned long long t[48]
    cdef public bint tcp_loose, tcp_be_liberal, tcp_ignore_invalid_rst, checksum, acct, timestamp, events
    cdef public int tcp_max_retrans, log_invalid
    cdef public Py_ssize_t max, expect_max

@cython.final
cdef class TimeoutPolicy:
    cdef public str name
    cdef public int l3num, l4proto
    cdef public unsigned long long t[16]

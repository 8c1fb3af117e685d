# Expectations. Explained in expect.py.
cimport cython
from userfw.conntrack.conn cimport Conn, Tuple
from userfw.conntrack.const cimport EXPECT_INACTIVE
from userfw.conntrack.settings cimport Settings
from userfw.conntrack.tuples cimport hash_words
from userfw.conntrack.wheel cimport NEVER
from userfw.core.const cimport IPS_CONFIRMED

cdef enum:
    EXPECT_BUCKETS = 1024

@cython.final
cdef class Expectation:
    cdef public Tuple tuple
    cdef public unsigned long long mask_hi, mask_lo, deadline
    cdef public unsigned short mask_sport
    cdef public Conn master
    cdef public object helper, assign_helper, expectfn
    cdef public int flags, klass, dir
    cdef public unsigned long long saved_hi, saved_lo
    cdef public unsigned short saved_port
    cdef public bint linked

@cython.final
cdef class ExpectTable:
    cdef readonly Settings settings
    cdef list buckets
    cdef readonly Py_ssize_t count
    cdef unsigned long long k0, k1
    cdef readonly dict gre_keys
    cdef public object observer
    cpdef Expectation find(self, Tuple key, unsigned long long now)
    cpdef int add(self, Expectation expectation, unsigned long long now, bint shared=*) except -100
    cpdef int remove(self, Expectation expectation) except -1
    cpdef int forget_master(self, Conn master) except -1
    cpdef unsigned long long next_deadline(self)
    cpdef int reap(self, unsigned long long now) except -1
    cpdef int gre_source(self, Tuple key) except -1
    cdef list _bucket(self, Tuple key)

cdef tuple _gre_index(Tuple key)
cdef bint _equal(Expectation a, Expectation b) except -1
cdef bint _overlaps(Expectation a, Expectation b) except -1

cdef class Clock:
    cdef public unsigned long long now
    cdef public double wall_offset

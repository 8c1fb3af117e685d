from userfw.nft.check_context cimport ProtoContext

cdef class LoadChecker:
    cdef public str family, tunnel
    cdef public object chain, resolver, names
    cdef public ProtoContext proto, outer
    cdef public dict tunnels, icmp_types
    cdef public list out
    cdef public bint lone

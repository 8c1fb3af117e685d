from userfw.nft.check_match cimport MatchChecker

cdef class NatChecker(MatchChecker):
    pass

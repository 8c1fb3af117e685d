from userfw.nft.check_set cimport SetChecker

cdef class MatchChecker(SetChecker):
    pass

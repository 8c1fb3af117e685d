from userfw.nft.check_load cimport LoadChecker

cdef class ExprChecker(LoadChecker):
    pass

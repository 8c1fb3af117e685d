from userfw.nft.check_expr cimport ExprChecker

cdef class SetChecker(ExprChecker):
    pass

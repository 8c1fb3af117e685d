from userfw.nft.lower_expr cimport ExprLowering

cdef class MatchLowering(ExprLowering):
    pass

from userfw.nft.parser_expr cimport ExprParser

cdef class NatParser(ExprParser):
    pass

from userfw.nft.parser_nat cimport NatParser

cdef class StmtParser(NatParser):
    pass

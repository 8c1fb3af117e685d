from userfw.nft.parser_base cimport ParserBase

cdef class ExprParser(ParserBase):
    pass

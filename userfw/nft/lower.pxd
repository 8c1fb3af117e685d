from userfw.nft.lower_write cimport WriteLowering

cdef class RuleLowering(WriteLowering):
    cdef public list chain_names, chains

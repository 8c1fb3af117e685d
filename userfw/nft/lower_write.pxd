from userfw.nft.lower_match cimport MatchLowering

cdef class WriteLowering(MatchLowering):
    pass

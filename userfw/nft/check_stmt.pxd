from userfw.nft.check_nat cimport NatChecker

cdef class RuleChecker(NatChecker):
    pass

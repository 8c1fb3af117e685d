from userfw.core.const cimport NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.const cimport SOCKET_MARK, SOCKET_TRANSPARENT, SOCKET_WILDCARD
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.services cimport SocketInfo

cdef class Socket(Expr):
    cdef readonly int key, length, dst, dreg, level
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

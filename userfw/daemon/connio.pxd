from userfw.conntrack.conn cimport Conn

cpdef tuple read_octets(Conn conn)
cpdef int write_octets(Conn conn, tuple scale, tuple flags) except -1

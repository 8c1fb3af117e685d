from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.errno cimport errno
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from userfw.core.const cimport HEADROOM, MAX_FRAME
from userfw.core.packet cimport Packet

cdef extern from "unistd.h" nogil:
    ssize_t sys_read "read"(int fd, void *buf, size_t count)
    ssize_t sys_write "write"(int fd, const void *buf, size_t count)

cdef extern from "sched.h" nogil:
    int sched_yield()

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *ts)

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        int fd
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)

cdef extern from "sys/socket.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    cmsghdr *CMSG_FIRSTHDR(msghdr *)
    cmsghdr *CMSG_NXTHDR(msghdr *, cmsghdr *)
    unsigned char *CMSG_DATA(cmsghdr *)
    int recvmmsg(int fd, mmsghdr *msgs, unsigned int vlen, int flags, timespec *timeout)
    int sendmmsg(int fd, mmsghdr *msgs, unsigned int vlen, int flags)

cdef extern from "linux/if_packet.h" nogil:
    struct tpacket_auxdata:
        uint32_t tp_status
        uint32_t tp_len
        uint16_t tp_vlan_tci
        uint16_t tp_vlan_tpid

ctypedef cmsghdr *cmsg_p
ctypedef tpacket_auxdata *aux_p

cdef enum:
    MMSG_MAX = 64
    MMSG_CONTROL = 64
    EPOLL_MAX = 64

cpdef Py_ssize_t read_at(int fd, bytearray data, Py_ssize_t off, Py_ssize_t size) except? -10000
cpdef Py_ssize_t write_at(int fd, bytearray data, Py_ssize_t off, Py_ssize_t size) except? -10000
cpdef unsigned long long monotonic_ns() noexcept
cpdef int yield_processor() noexcept

cdef class Batch:
    cdef mmsghdr messages[MMSG_MAX]
    cdef iovec vectors[MMSG_MAX]
    cdef char control[MMSG_MAX][MMSG_CONTROL]
    cdef int prefix
    cdef object sock
    cdef list results
    cpdef int receive(self, int fd, list slots, int count) except? -10000
    cpdef int send(self, int fd, list packets, int first, int count) except? -10000
    cpdef Py_ssize_t length(self, int i) except? -10000
    cpdef int vlan(self, int i) except? -10000
    cpdef int vlan_protocol(self, int i) except? -10000
    cdef aux_p _auxdata(self, int i) noexcept

cdef class Readiness:
    cdef epoll_event events[EPOLL_MAX]
    cdef readonly int fd
    cdef object epoll
    cdef list tags
    cpdef int wait(self, int milliseconds) except? -10000
    cpdef int tag(self, int i) except? -10000

# Touching memory before it is needed. Explained in ahead.py; this and wire._raw are where raw pointers are used.
from userfw.core.packet cimport Packet

cdef extern from *:
    """
    /* Where item `i` of a list stands, on its way into the cache; NULL beyond the list. */
    static inline void *uf_slot(PyObject *list, Py_ssize_t i) {
        if (i < 0 || i >= PyList_GET_SIZE(list)) return NULL;
        PyObject **slot = &((PyListObject *)list)->ob_item[i];
        __builtin_prefetch(slot);
        return slot;
    }
    /* The object in such a place, not owned; NULL for None. */
    static inline void *uf_load(void *slot) {
        PyObject *found = *(PyObject **)slot;
        return found == Py_None ? NULL : found;
    }
    static inline void *uf_some(void *object) { return object == (void *)Py_None ? NULL : object; }
    /* The cache lines that hold `size` bytes of an object; they will be written, if only its reference count. */
    static inline void uf_touch(void *object, Py_ssize_t size) {
        for (Py_ssize_t at = 0; at < size; at += 64) __builtin_prefetch((char *)object + at, 1);
        __builtin_prefetch((char *)object + size - 1, 1);
    }
    static inline void uf_bytes(PyObject *bytearray, Py_ssize_t at) {
        if (at >= 0 && at < PyByteArray_GET_SIZE(bytearray)) __builtin_prefetch(PyByteArray_AS_STRING(bytearray) + at);
    }
    """
    void *slot_of "uf_slot" (list items, Py_ssize_t i) noexcept
    void *load "uf_load" (void *slot) noexcept
    void *some "uf_some" (void *object) noexcept
    void touch "uf_touch" (void *object, Py_ssize_t size) noexcept
    void touch_bytes "uf_bytes" (bytearray data, Py_ssize_t at) noexcept

cdef enum:
    AHEAD = 64
    NOT_AHEAD = -1
    TAKEN_AHEAD = -2

cdef class Lookahead:
    cpdef bint useful(self) except -1
    cpdef int look(self, list[Packet] packets, Py_ssize_t first, Py_ssize_t n) except -1

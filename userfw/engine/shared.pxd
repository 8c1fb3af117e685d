cdef extern from *:
    """
    #include <sched.h>
    typedef unsigned long long shared_word;
    static inline shared_word *shared_words(PyObject *mapping) {
        Py_buffer view;
        if (PyObject_GetBuffer(mapping, &view, PyBUF_WRITABLE) < 0) return NULL;
        shared_word *words = (shared_word *)view.buf;
        PyBuffer_Release(&view);
        return words;
    }
    static inline shared_word shared_load(shared_word *words, Py_ssize_t at) { return __atomic_load_n(words + at, __ATOMIC_ACQUIRE); }
    static inline int shared_store(shared_word *words, Py_ssize_t at, shared_word value)
        { __atomic_store_n(words + at, value, __ATOMIC_RELEASE); return 0; }
    static inline shared_word shared_add(shared_word *words, Py_ssize_t at, shared_word value)
        { return __atomic_add_fetch(words + at, value, __ATOMIC_ACQ_REL); }
    static inline int shared_swap(shared_word *words, Py_ssize_t at, shared_word old, shared_word value)
        { return __atomic_compare_exchange_n(words + at, &old, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE); }
    static inline int shared_yield(void) { return sched_yield(); }
    """
    unsigned long long *shared_words(object mapping) except NULL
    unsigned long long shared_load(unsigned long long *words, Py_ssize_t at) noexcept
    int shared_store(unsigned long long *words, Py_ssize_t at, unsigned long long value) noexcept
    unsigned long long shared_add(unsigned long long *words, Py_ssize_t at, unsigned long long value) noexcept
    bint shared_swap(unsigned long long *words, Py_ssize_t at, unsigned long long old, unsigned long long value) noexcept
    int shared_yield() noexcept

cdef enum:
    HEAD = 8
    SLOT = 8
    LOCK = 0
    USED = 1
    KEY0 = 0
    KEY1 = 1
    REFS = 2
    VALUE = 3
    FLAG = 4
    SPINS = 1000000

cdef class Pool:
    cdef object mapping
    cdef unsigned long long *words
    cdef readonly Py_ssize_t slots
    cdef bint _lock(self) noexcept
    cpdef Shared attach(self, unsigned long long key0, unsigned long long key1, unsigned long long value)
    cdef int release(self, Py_ssize_t at) noexcept

cdef class Shared:
    cdef Pool pool
    cdef Py_ssize_t at
    cpdef unsigned long long load(self) noexcept
    cpdef int store(self, unsigned long long value) noexcept
    cpdef unsigned long long add(self, unsigned long long value) noexcept
    cpdef bint take(self, unsigned long long now, unsigned long long cost, unsigned long long most) noexcept
    cpdef bint first(self) noexcept
    cpdef int again(self) noexcept

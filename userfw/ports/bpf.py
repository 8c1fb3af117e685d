"""bpf(2) through ctypes: maps, programs, links, test runs (Linux: union bpf_attr).

Errors are OSError; a refused program brings the verifier's log.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from typing import Final

MAP_CREATE: Final = 0
MAP_LOOKUP_ELEM: Final = 1
MAP_UPDATE_ELEM: Final = 2
MAP_DELETE_ELEM: Final = 3
MAP_GET_NEXT_KEY: Final = 4
PROG_LOAD: Final = 5
MAP_LOOKUP_AND_DELETE_ELEM: Final = 21
MAP_LOOKUP_BATCH: Final = 24
LINK_UPDATE: Final = 29
PROG_TEST_RUN: Final = 10
LINK_CREATE: Final = 28
MAP_TYPE_HASH: Final = 1
MAP_TYPE_ARRAY: Final = 2
PROG_TYPE_SCHED_CLS: Final = 3
PROG_TYPE_XDP: Final = 6
F_NO_PREALLOC: Final = 1
ATTACH_XDP: Final = 37
ATTACH_TCX_INGRESS: Final = 46

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "armv7l": 386, "ppc64le": 361, "s390x": 351}
_ATTR_SIZE = 144
_libc = ctypes.CDLL(None, use_errno=True)


class VerifierError(OSError):
    """The kernel refused a program; `log` is what the verifier said."""

    def __init__(self, code: int, name: str, log: str) -> None:
        # without the capability the verifier forbids arithmetic between pointers, which what rewrites packets needs
        hint = "; CAP_PERFMON is needed" if "pointer" in log and "prohibited" in log else ""
        super().__init__(code, f"the kernel refused the program {name}: {os.strerror(code)}{hint}")
        self.log = log


def _bpf(command: int, attributes: bytes) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"the number of bpf(2) on {platform.machine()} is not known here")
    buffer = ctypes.create_string_buffer(attributes, _ATTR_SIZE)
    result: int = _libc.syscall(number, command, buffer, _ATTR_SIZE)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _pointer(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


class Map:
    """A hash or array map; owns its file descriptor."""

    def __init__(self, kind: int, key_size: int, value_size: int, entries: int, name: str, flags: int = 0) -> None:
        self.key_size = key_size
        self.value_size = value_size
        self.entries = entries
        label = name.encode()[:15].ljust(16, b"\0")
        self.fd = _bpf(MAP_CREATE, struct.pack("<IIIIIII16s", kind, key_size, value_size, entries, flags, 0, 0, label))

    def close(self) -> None:
        """Give the descriptor back; programs that use the map keep it alive."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __setitem__(self, key: bytes, value: bytes) -> None:
        """Add or replace. OSError E2BIG: the map is full."""
        if len(key) != self.key_size or len(value) != self.value_size:
            raise ValueError(f"{len(key)} and {len(value)} bytes; the map holds {self.key_size} and {self.value_size}")
        k, v = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
        _bpf(MAP_UPDATE_ELEM, struct.pack("<IxxxxQQQ", self.fd, _pointer(k), _pointer(v), 0))

    def get(self, key: bytes) -> bytes | None:
        """A copy of the value, or None."""
        k, v = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(self.value_size)
        try:
            _bpf(MAP_LOOKUP_ELEM, struct.pack("<IxxxxQQQ", self.fd, _pointer(k), _pointer(v), 0))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return v.raw

    def pop(self, key: bytes) -> bool:
        """Remove; whether it was there."""
        k = ctypes.create_string_buffer(key, len(key))
        try:
            _bpf(MAP_DELETE_ELEM, struct.pack("<IxxxxQ", self.fd, _pointer(k)))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def take(self, key: bytes) -> bytes | None:
        """Remove and return the value, None if it is not there. Before Linux 5.14 in two steps."""
        k, v = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(self.value_size)
        try:
            _bpf(MAP_LOOKUP_AND_DELETE_ELEM, struct.pack("<IxxxxQQQ", self.fd, _pointer(k), _pointer(v), 0))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            if error.errno not in (errno.EINVAL, 524):  # ENOTSUPP
                raise
            value = self.get(key)
            self.pop(key)
            return value
        return v.raw

    def batch(self, cursor: bytes | None, limit: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """Up to `limit` keys with values from `cursor` on (None: the first), and the cursor to go on from (None: the end).

        One system call (Linux 5.6). OSError ENOSPC: `limit` is smaller than a bucket.
        """
        keys = ctypes.create_string_buffer(self.key_size * limit)
        values = ctypes.create_string_buffer(self.value_size * limit)
        here = ctypes.create_string_buffer(cursor or b"", max(self.key_size, 4))
        there = ctypes.create_string_buffer(max(self.key_size, 4))
        attributes = struct.pack(
            "<QQQQIIQQ", _pointer(here) if cursor is not None else 0, _pointer(there), _pointer(keys), _pointer(values), limit,
            self.fd, 0, 0,
        )  # fmt: skip
        buffer = ctypes.create_string_buffer(attributes, _ATTR_SIZE)
        end = False
        if _libc.syscall(_NUMBERS[platform.machine()], MAP_LOOKUP_BATCH, buffer, _ATTR_SIZE) < 0:
            code = ctypes.get_errno()
            if code != errno.ENOENT:
                raise OSError(code, os.strerror(code))
            end = True
        count = struct.unpack_from("<I", buffer.raw, 32)[0]
        k, v, ks, vs = keys.raw, values.raw, self.key_size, self.value_size
        found = [(k[i * ks : (i + 1) * ks], v[i * vs : (i + 1) * vs]) for i in range(count)]
        return found, None if end else there.raw

    def keys(self) -> Iterator[bytes]:
        """All keys; entries that come or go meanwhile may be missed or seen."""
        key = ctypes.create_string_buffer(self.key_size)
        first = True
        while True:
            following = ctypes.create_string_buffer(self.key_size)
            at = 0 if first else _pointer(key)
            try:
                _bpf(MAP_GET_NEXT_KEY, struct.pack("<IxxxxQQ", self.fd, at, _pointer(following)))
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            yield following.raw
            key, first = following, False


def load(kind: int, code: bytes, name: str) -> int:
    """Load a program and return its descriptor. VerifierError carries the verifier's log, asked for only when it refuses."""
    instructions = ctypes.create_string_buffer(code, len(code))
    license = ctypes.create_string_buffer(b"Dual BSD/GPL")
    label = name.encode()[:15].ljust(16, b"\0")

    def attempt(level: int, log: ctypes.Array[ctypes.c_char] | None) -> int:
        at, size = (_pointer(log), len(log)) if log is not None else (0, 0)
        attributes = struct.pack(
            "<IIQQIIQII16s", kind, len(code) // 8, _pointer(instructions), _pointer(license), level, size, at, 0, 0, label
        )
        return _bpf(PROG_LOAD, attributes)

    try:
        return attempt(0, None)
    except OSError as refused:
        log = ctypes.create_string_buffer(1 << 20)
        try:
            return attempt(1, log)
        except OSError:
            raise VerifierError(refused.errno or 0, name, log.value.decode(errors="replace")) from refused


def attach(program: int, ifindex: int, kind: int, flags: int = 0) -> int:
    """Hang `program` on an interface of the calling thread's network namespace; it hangs there as long as the descriptor is open.

    `kind`: ATTACH_XDP (Linux 5.9) or ATTACH_TCX_INGRESS (Linux 6.6). OSError EBUSY: another XDP program is there.
    """
    return _bpf(LINK_CREATE, struct.pack("<IIII", program, ifindex, kind, flags))


def replace(link: int, program: int) -> None:
    """Another program on a link, in one step (Linux 5.9)."""
    _bpf(LINK_UPDATE, struct.pack("<IIII", link, program, 0, 0))


def test_run(program: int, frame: bytes, repeat: int = 1) -> tuple[int, bytes, int]:
    """Run a program on `frame` without a device: (its verdict, the frame afterwards, nanoseconds a run)."""
    data_in, data_out = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(len(frame) + 256)
    attributes = struct.pack(
        "<IIIIQQII", program, 0, len(frame), len(data_out), _pointer(data_in), _pointer(data_out), repeat, 0
    )
    buffer = ctypes.create_string_buffer(attributes, _ATTR_SIZE)
    result = _libc.syscall(_NUMBERS[platform.machine()], PROG_TEST_RUN, buffer, _ATTR_SIZE)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    _, verdict, _, size, _, _, _, duration = struct.unpack_from("<IIIIQQII", buffer.raw)
    return verdict, data_out.raw[:size], duration

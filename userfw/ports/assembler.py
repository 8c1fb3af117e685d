"""A small eBPF assembler: instructions by name, labels, no compiler (Linux: include/uapi/linux/bpf.h, RFC 9669).

One instruction is eight bytes: opcode, registers (source << 4 | destination), offset, immediate. Jumps name labels, which
`assemble` turns into offsets counted in instructions. The verifier judges what comes out; nothing is checked twice here.
"""

import struct
from typing import Final

R0: Final = 0  # return value
R1: Final = 1  # arguments R1-R5, lost over calls
R2: Final = 2
R3: Final = 3
R4: Final = 4
R5: Final = 5
R6: Final = 6  # kept over calls R6-R9
R7: Final = 7
R8: Final = 8
R9: Final = 9
R10: Final = 10  # frame pointer

_SIZE = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_ALU = {
    "add": 0x00, "sub": 0x10, "mul": 0x20, "div": 0x30, "or": 0x40, "and": 0x50, "lsh": 0x60, "rsh": 0x70, "neg": 0x80,
    "mod": 0x90, "xor": 0xA0, "mov": 0xB0, "arsh": 0xC0,
}  # fmt: skip
_JUMP = {
    "ja": 0x00, "jeq": 0x10, "jgt": 0x20, "jge": 0x30, "jset": 0x40, "jne": 0x50, "jsgt": 0x60, "jsge": 0x70,
    "jlt": 0xA0, "jle": 0xB0, "jslt": 0xC0, "jsle": 0xD0,
}  # fmt: skip
_PSEUDO_MAP_FD: Final = 1


class Program:
    """Instructions in the order in which the methods are called."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int | str, int]] = []
        self._labels: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._code)

    def label(self, name: str) -> None:
        """The next instruction can be jumped to by `name`. ValueError if the name is taken."""
        if name in self._labels:
            raise ValueError(f"label {name} is defined twice")
        self._labels[name] = len(self._code)

    def alu(self, operation: str, dst: int, value: int, *, register: bool = False, bits: int = 64) -> None:
        """`dst op= value`, an immediate or (with `register`) a register; 32-bit operations clear the upper half."""
        opcode = _ALU[operation] | (0x07 if bits == 64 else 0x04) | (0x08 if register else 0)
        if register:
            self._emit(opcode, dst, value, 0, 0)
        else:
            self._emit(opcode, dst, 0, 0, value)

    def mov(self, dst: int, src: int) -> None:
        """`dst = src`, registers."""
        self.alu("mov", dst, src, register=True)

    def set(self, dst: int, value: int) -> None:
        """`dst = value`, a 32-bit immediate, sign-extended."""
        self.alu("mov", dst, value)

    def swap(self, dst: int, bits: int) -> None:
        """`dst` from network to host order or back; the bits above `bits` are cleared (BPF_END, to big endian)."""
        self._emit(0xDC, dst, 0, 0, bits)

    def load(self, size: int, dst: int, src: int, offset: int) -> None:
        """`dst = *(size *)(src + offset)`."""
        self._emit(0x61 | _SIZE[size], dst, src, offset, 0)

    def store(self, size: int, dst: int, offset: int, src: int) -> None:
        """`*(size *)(dst + offset) = src`, a register."""
        self._emit(0x63 | _SIZE[size], dst, src, offset, 0)

    def store_immediate(self, size: int, dst: int, offset: int, value: int) -> None:
        """`*(size *)(dst + offset) = value`."""
        self._emit(0x62 | _SIZE[size], dst, 0, offset, value)

    def atomic_add(self, size: int, dst: int, offset: int, src: int) -> None:
        """`*(size *)(dst + offset) += src`, atomically (4 or 8 bytes)."""
        self._emit(0xC3 | _SIZE[size], dst, src, offset, 0)

    def map(self, dst: int, fd: int) -> None:
        """`dst` = the map behind file descriptor `fd` (two instructions)."""
        self._emit(0x18, dst, _PSEUDO_MAP_FD, 0, fd)
        self._emit(0, 0, 0, 0, 0)

    def jump(self, target: str) -> None:
        """Go to the label `target`."""
        self._emit(0x05, 0, 0, target, 0)

    def branch(self, condition: str, dst: int, value: int, target: str, *, register: bool = False, bits: int = 64) -> None:
        """Go to `target` if `dst condition value` holds."""
        opcode = _JUMP[condition] | (0x05 if bits == 64 else 0x06) | (0x08 if register else 0)
        if register:
            self._emit(opcode, dst, value, target, 0)
        else:
            self._emit(opcode, dst, 0, target, value)

    def call(self, helper: int) -> None:
        """Call a kernel helper by number; arguments in R1-R5, result in R0."""
        self._emit(0x85, 0, 0, 0, helper)

    def exit(self) -> None:
        """Return R0."""
        self._emit(0x95, 0, 0, 0, 0)

    def assemble(self) -> bytes:
        """The program's bytes. ValueError names a label that is missing or too far."""
        code = bytearray()
        for index, (opcode, dst, src, offset, value) in enumerate(self._code):
            if isinstance(offset, str):
                if offset not in self._labels:
                    raise ValueError(f"instruction {index} jumps to {offset}, which is not defined")
                offset = self._labels[offset] - index - 1
            if not -0x8000 <= offset <= 0x7FFF:
                raise ValueError(f"instruction {index}: offset {offset} does not fit in 16 bits")
            code += struct.pack("<BBhI", opcode, (src << 4) | dst, offset, value & 0xFFFFFFFF)
        return bytes(code)

    def _emit(self, opcode: int, dst: int, src: int, offset: int | str, value: int) -> None:
        self._code.append((opcode, dst, src, offset, value))

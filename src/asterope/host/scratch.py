"""Scratch memory of one program: buffers at fixed offsets, reused when their value is dead."""

from __future__ import annotations

from asterope.host.values import Memory

__all__ = ["Scratch"]

_ALIGN = 64


class Scratch:
    """Hand out pieces of one area, first fit; remember how large the area must be."""

    def __init__(self) -> None:
        self._free: list[tuple[int, int]] = []
        self.num_bytes = 0

    def allocate(self, num_bytes: int) -> Memory:
        """Reserve a piece, cache-line aligned, with room for one vector read past its end."""
        size = -(-(num_bytes + _ALIGN) // _ALIGN) * _ALIGN
        for i, (offset, length) in enumerate(self._free):
            if length >= size:
                self._free[i : i + 1] = [(offset + size, length - size)] if length > size else []
                return Memory(offset, size)
        memory = Memory(self.num_bytes, size)
        self.num_bytes += size
        return memory

    def release(self, memory: Memory) -> None:
        """Give a piece back, joining it with free neighbours."""
        pieces = sorted([*self._free, (memory.offset, memory.num_bytes)])
        joined = [pieces[0]]
        for offset, length in pieces[1:]:
            last_offset, last_length = joined[-1]
            if last_offset + last_length == offset:
                joined[-1] = (last_offset, last_length + length)
            else:
                joined.append((offset, length))
        self._free = joined

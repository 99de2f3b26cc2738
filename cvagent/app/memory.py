"""Gives memory back to the system: glibc keeps what a first round over a large cluster needed only once."""

import ctypes

_MMAP_THRESHOLD = -3
_ARENA_MAX = -8
_LARGE = 256 * 1024


def hoard_nothing() -> None:
    """Have glibc map large blocks apart and keep one heap for all threads. Does nothing with another C library."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """Return free memory to the system. Does nothing with another C library."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)

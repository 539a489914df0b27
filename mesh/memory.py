"""Memory that is free, given back to the system."""

import ctypes

_libc = ctypes.CDLL(None)


def give_back() -> None:
    """Gives back what the allocator keeps of freed memory (malloc_trim(3)).

    It takes a few milliseconds, in which nothing else runs: call it after something large.
    Does nothing where the C library has no such call.
    """
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)

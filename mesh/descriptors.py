"""How many files and connections a process may have open."""

import resource

WANTED = 65_536
"""Of more, nothing here has a use; some programs walk through all that they may have."""


def raise_limit() -> int:
    """The soft limit of open descriptors, raised to the hard one or `WANTED`, for children too.

    1,024 is what most systems give, and a hundred streams with a connection each come near it.
    Never lowers it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        return allowed
    return soft

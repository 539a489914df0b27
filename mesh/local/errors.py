"""The one error of running a mesh locally."""


class LocalError(Exception):
    """The mesh cannot start, run or stop; the text is fit for the person who asked for it."""

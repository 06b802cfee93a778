"""Errors that speak of the data rather than of the call."""


class SingularFitError(ValueError):
    """The images do not determine the kernel.

    Raised where an answer would be noise: a flat source, fewer pixels than taps, or a source in
    which some frequencies are missing. The message says what would help.
    """

"""What can go wrong in the command: one class for each exit code."""


class CommandError(Exception):
    """A failure that is told in one line. Never raised itself."""

    exit_code = 1


class NumericalError(CommandError):
    """The numbers do not allow what was asked."""


class UsageError(CommandError):
    """The options are wrong, whatever the files hold."""

    exit_code = 2


class InputError(CommandError):
    """A file that is read is missing, damaged, too large or does not fit the other."""

    exit_code = 3


class OutputError(CommandError):
    """A file cannot be written."""

    exit_code = 4


class DisbeliefError(CommandError):
    """The kernel was found and written, and is not to be believed; told with ``--strict`` alone."""

    exit_code = 5


class SomeFailedError(CommandError):
    """Some of many files failed, and each of them was told in a line of its own.

    Parameters
    ----------
    exit_code : int
        That of the first failure.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("some files failed")
        self.exit_code = exit_code

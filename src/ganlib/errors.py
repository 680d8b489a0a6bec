"""What can go wrong through no fault of the program, each with the exit status of the command line.

Each message is one line that says what was wrong, where (file, row, field), what is accepted and what to do.
"""


class GanlibError(Exception):
    """The base of every error that a user can mend; the command line prints it without a traceback."""

    exit_status = 70


class UsageError(GanlibError, ValueError):
    """An argument that cannot be used: an unknown recipe or option, a size out of range."""

    exit_status = 2


class NotFittedError(UsageError, AttributeError):
    """A model that has not been trained or loaded yet."""


class DataError(GanlibError, ValueError):
    """Data that cannot be used: wrong shape, non-finite values, no readable picture."""

    exit_status = 65


class MissingError(GanlibError, FileNotFoundError):
    """A file or folder that is not there."""

    exit_status = 66


class DivergedError(GanlibError, ArithmeticError):
    """Training produced a value that is not finite."""

    exit_status = 70


class ExhaustedError(GanlibError, MemoryError):
    """A step that needs more memory than the device has."""

    exit_status = 71


class WriteError(GanlibError, OSError):
    """A file that could not be written: disk full, no permission."""

    exit_status = 74


class BusyError(GanlibError, RuntimeError):
    """Another process works on the same run folder."""

    exit_status = 75


class DamagedError(GanlibError, OSError):
    """A saved file whose content is not what was written."""

    exit_status = 65


class LostError(GanlibError, RuntimeError):
    """Another process of the same training has gone."""

    exit_status = 76


class RunError(GanlibError, ValueError):
    """A run folder that does not fit: other data, another recipe, a newer version of ganlib."""

    exit_status = 78


def is_of_memory(error: Exception) -> bool:
    """Whether an error of Python, numpy or torch means short memory; torch has no class for that on a processor."""
    told = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(sign in told for sign in signs)

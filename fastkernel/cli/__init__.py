"""The ``fastkernel`` command.

Exit codes: 0 done, 1 the images do not determine the kernel, 2 wrong options, 3 wrong input
files, 4 output cannot be written, 5 with --strict a kernel that is not to be believed, 130
interrupted, 141 the reader of standard output went away; of many files that of the first failure.
Where a file was asked for, the code tells of that file, and standard output may be lost.
"""

import importlib
import os
import traceback
from collections.abc import Sequence

from fastkernel.cli.errors import CommandError, OutputError, SomeFailedError
from fastkernel.cli.options import read_options
from fastkernel.cli.streams import Stream, standard_streams
from fastkernel.cli.voice import complain
from fastkernel.estimation.errors import SingularFitError

INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments, those of the process when None.

    Returns
    -------
    int
        The exit code.
    """
    with standard_streams() as (out, _):
        return _run(argv, out)


def _run(argv: Sequence[str] | None, out: Stream) -> int:
    debug, written = False, False
    try:
        options = read_options(argv)
        debug = options.debug
        _check_folder()
        importlib.import_module(f"fastkernel.cli.{options.command}").run(options)
        written = getattr(options, "output", None) not in {None, "-"}
    except SystemExit as stop:  # argparse, after --help and --version
        if stop.code:
            return int(stop.code)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, debug)
    except SomeFailedError as problem:
        return problem.exit_code
    except CommandError as problem:
        return _fail(str(problem), problem.exit_code, debug)
    except SingularFitError as problem:
        return _fail(str(problem), 1, debug)
    except MemoryError:
        return _fail("not enough memory for images of this size", 3, debug)
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as problem:  # readers and writers name their files: this is the system
        return _fail(str(problem), 4, debug)
    out.flush()
    if out.problem is None or written:
        return 0
    if isinstance(out.problem, BrokenPipeError):
        return BROKEN_PIPE
    return _fail(f"standard output: {out.problem.strerror or out.problem}", 4, debug)


def _check_folder() -> None:
    """Raise where the current folder was removed, which libraries trip over when imported."""
    try:
        os.getcwd()  # noqa: PTH109
    except OSError as problem:
        msg = "the current folder is gone, and no file can be written there; go to another"
        raise OutputError(msg) from problem


def _fail(message: str, exit_code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    complain(message)
    return exit_code

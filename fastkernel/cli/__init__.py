"""The ``fastkernel`` command.

Exit codes: 0 done, 1 the images do not determine the kernel, 2 wrong options, 3 wrong input
files, 4 output cannot be written, 130 interrupted, 141 the reader of standard output went away.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from fastkernel.cli.errors import CommandError
from fastkernel.cli.options import read_options
from fastkernel.errors import SingularFitError

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
    debug = False
    try:
        options = read_options(argv)
        debug = options.debug
        importlib.import_module(f"fastkernel.cli.{options.command}").run(options)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse, after --help and --version
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, debug)
    except BrokenPipeError:
        _forget_stdout()
        return BROKEN_PIPE
    except CommandError as problem:
        return _fail(str(problem), problem.exit_code, debug)
    except SingularFitError as problem:
        return _fail(str(problem), 1, debug)
    except MemoryError:
        return _fail("not enough memory for images of this size", 3, debug)
    except OSError as problem:  # readers and writers name their files: this is standard output
        _forget_stdout()
        return _fail(f"standard output: {problem.strerror}", 4, debug)
    return 0


def _fail(message: str, exit_code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    # File names may hold anything: no line breaks and no terminal escapes get through.
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))
    print(f"fastkernel: error: {line}", file=sys.stderr)
    return exit_code


def _forget_stdout() -> None:
    # Python flushes standard output once more at exit, and would complain about it then.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

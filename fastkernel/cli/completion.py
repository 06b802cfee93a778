"""``fastkernel completion``: what a shell completes the command by, made by argcomplete."""

import argparse

from fastkernel.cli.errors import OutputError


def run(options: argparse.Namespace) -> None:
    """Print the lines that a shell reads at its start."""
    try:
        import argcomplete
    except ImportError as problem:
        msg = "completion needs argcomplete: pip install 'fastkernel[cli]'"
        raise OutputError(msg) from problem
    print(argcomplete.shellcode(["fastkernel"], shell=options.shell))  # type: ignore[attr-defined]


def complete(parser: argparse.ArgumentParser) -> None:
    """Tell a shell what may stand next, and end the process."""
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(parser)

"""GNU Octave, for loops that were published in its language."""

import shutil
import subprocess


def printed(script: str) -> str | None:
    """What a script prints, None where Octave is missing."""
    program = shutil.which("octave-cli") or shutil.which("octave")
    if program is None:
        return None
    done = subprocess.run(
        [program, "--quiet", "--no-gui", "--no-init-file", "--eval", script],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return done.stdout

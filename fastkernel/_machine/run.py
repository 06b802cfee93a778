"""How work runs: a value that travels beside what is to be done."""

from dataclasses import dataclass

from fastkernel._typing import Progress


@dataclass(frozen=True, slots=True)
class Run:
    """On how many threads work runs, and who hears of it. It has no say in the answer.

    Work is cancelled by an exception: by what ``progress`` raises, or by Ctrl-C. Jobs that are
    under way then end at their next look (`tiles.run_jobs`), and the exception is raised on.

    Attributes
    ----------
    workers : int
        Threads to use, the calling one included.
    progress : callable or None
        Called as ``progress(done, total)`` in the calling thread.
    """

    workers: int = 1
    progress: Progress | None = None

    def part(self, done: int, total: int) -> "Run":
        """Return the same for a part of the work, after ``done`` of ``total`` pixels."""
        progress = self.progress
        if progress is None:
            return self
        return Run(self.workers, lambda more, _: progress(done + more, total))

    def halves(self, total: int) -> "tuple[Run, Run]":
        """Return the same for two phases, of which the first has ``total`` steps: so do both."""
        progress = self.progress
        if progress is None:
            return self, self
        first = Run(self.workers, lambda done, _: progress(done, 2 * total))
        return first, Run(
            self.workers, lambda done, of: progress(total + total * done // of, 2 * total)
        )

    @property
    def silent(self) -> "Run":
        """The same, and nobody hears of it: for a part of the work that another one reports."""
        return Run(self.workers)

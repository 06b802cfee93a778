"""What a fit shows of itself: text, figures, a verdict and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.checks import as_choice, as_workers
from fastkernel._images.crops import Crop
from fastkernel._images.pairs import Fitted, Pair, refuse_unusable
from fastkernel._images.windows import Window
from fastkernel._machine.kept import kept_property
from fastkernel._typing import Border, FloatArray, Images, Light, ReportFormat, Shape
from fastkernel.estimation.display import (
    answer_html,
    answer_text,
    background_fact,
    bars_fact,
    iterations_fact,
    plot_fit,
)
from fastkernel.estimation.quality import Facts, Verdict, facts_of, judge
from fastkernel.estimation.quality.planes import (
    limits_of,
    pairs_to_compare,
    planes_of,
    with_mask,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastkernel.estimation.report.contents import Selection
    from fastkernel.estimation.report.looks import Look

FORMATS: tuple[ReportFormat, ...] = get_args(ReportFormat)


class _Fit(Protocol):
    """A fit, as far as it is shown: `KernelFit`."""

    @property
    def kernel(self) -> FloatArray: ...
    @property
    def residual_rms(self) -> float: ...
    @property
    def condition_number(self) -> float: ...
    @property
    def n_pixels(self) -> int: ...
    @property
    def method(self) -> str: ...
    @property
    def solver(self) -> str: ...
    @property
    def num_iter(self) -> int: ...
    @property
    def converged(self) -> bool: ...
    @property
    def history(self) -> Mapping[str, FloatArray] | None: ...
    @property
    def background(self) -> float | FloatArray | None: ...
    @property
    def ridge(self) -> float: ...
    @property
    def equations(self) -> Any: ...
    @property
    def standard_errors(self) -> FloatArray: ...
    @property
    def covariance(self) -> FloatArray: ...
    @property
    def quality(self) -> Verdict | None: ...
    @property
    def offset(self) -> Shape: ...
    @property
    def light(self) -> Light: ...
    @property
    def found(self) -> Any: ...
    @property
    def _fitted(self) -> tuple[Fitted, ...]: ...
    def _beside(
        self, source_shape: Shape, window: Window, pair: int | None
    ) -> float | FloatArray | None: ...
    def _crop(self, source_shape: Shape, result_shape: Shape) -> Crop: ...
    def _facts(self) -> dict[str, str]: ...
    def residual(
        self,
        source: ArrayLike,
        result: ArrayLike,
        *,
        boundary: Border | None = None,
        background: bool = True,
        pair: int | None = None,
        workers: int | None = None,
    ) -> FloatArray: ...


class Shown:
    """The part of a `KernelFit` that shows it."""

    @kept_property
    def quality(self: _Fit) -> Verdict | None:
        """Whether to believe the kernel, and why; None where the images are gone.

        `judge` on the images that were fitted. It is computed when it is first asked for, by some
        passes over all pixels, and kept. A fit keeps no image alive: where the arrays that were
        fitted are gone by then, were overwritten, or are read by slices, this is None, and
        `judge` takes them again.
        """
        pairs = _recalled(self)
        return _judged(self, _facts_of(self, pairs, None, None, None)) if pairs else None

    def judge(
        self: _Fit,
        source: Images,
        result: Images,
        *,
        boundary: Border | None = None,
        channel_axis: int | None = None,
        pair: int | None = None,
        used: ArrayLike | Sequence[ArrayLike | None] | None = None,
        lossy: bool = False,
        workers: int | None = None,
    ) -> Verdict:
        """Say whether to believe the kernel, from what it leaves of images.

        Parameters
        ----------
        source, result : (rows, cols) array_like of real numbers, or sequences of them
            Images; their shapes say which pixels are compared, as in `estimate_kernel`.
        boundary : str, optional
            Border rule of results of the sources' shape; None leaves out what a rule touches.
        channel_axis : int, optional
            The axis of 3-dimensional images that holds channels.
        pair : int, optional
            Whose background it is, where the images are one of several pairs; see `background`.
        used : bool array, or one a pair, optional
            Which pixels of the result count, of its shape. By default those that were fitted,
            where the images have the shapes of those.
        lossy : bool, optional
            Whether an image was compressed with losses, as JPEG does.
        workers : int, optional
            Threads to use, every usable core when None.

        Returns
        -------
        Verdict
            ``belief`` in words, the ``reasons`` for it, what ``helps``, and the ``facts`` behind.

        Raises
        ------
        TypeError, ValueError
            As `estimate_kernel`, for the images and ``boundary``; as `predict`, for the
            background; or if ``used`` is no mask of the result's shape.

        Notes
        -----
        A right kernel leaves rounding, or noise that knows nothing of the picture; a wrong one
        leaves what follows it. Results that are integers of at most 16 bits are compared with
        predictions that end where their levels do. All pixels are read, some rows at a time.

        Examples
        --------
        >>> import numpy as np
        >>> from fastkernel import convolve, estimate_kernel
        >>> image = np.random.default_rng(0).integers(0, 256, (60, 60)).astype(np.uint8)
        >>> result = np.rint(convolve(image, np.full((3, 3), 1 / 9))).astype(np.uint8)
        >>> fit = estimate_kernel(image, result, 3)
        >>> fit.judge(image, result).belief
        'believe it'
        """
        pairs = _pairs_of(self, source, result, boundary, channel_axis, pair, used)
        return _judged(self, _facts_of(self, pairs, pair, workers, None), lossy=lossy)

    def plot(
        self: _Fit,
        source: ArrayLike | None = None,
        result: ArrayLike | None = None,
        *,
        boundary: Border | None = None,
        pair: int | None = None,
    ) -> Figure:
        """Draw the kernel, and what tells how far to believe it.

        Beside the kernel stand the history of the iterations, where there were any, or else the
        standard errors, unless these are all alike; and the residual, if images are given.

        Parameters
        ----------
        source, result : array_like of real numbers, optional
            The images of `residual`, both or neither.
        boundary, pair : optional
            As in `residual`.

        Returns
        -------
        matplotlib.figure.Figure
            Belongs to no window: a notebook shows it where it is the value of a cell; elsewhere
            call its ``savefig``.

        Raises
        ------
        ImportError
            If matplotlib is missing, which the extra ``fastkernel[plot]`` installs.
        TypeError, ValueError
            If one image is given without the other, or as `residual`.
        """
        images = _both(source, result, "plot")
        left = self.residual(*images, boundary=boundary, pair=pair) if images else None
        return plot_fit(self, residual=left)

    def report(
        self: _Fit,
        source: Images | None = None,
        result: Images | None = None,
        *,
        format: ReportFormat = "text",  # noqa: A002
        path: str | PathLike[str] | None = None,
        title: str | None = None,
        boundary: Border | None = None,
        channel_axis: int | None = None,
        pair: int | None = None,
        used: ArrayLike | Sequence[ArrayLike | None] | None = None,
        selection: Selection | None = None,
        verdict: Verdict | None = None,
        workers: int | None = None,
    ) -> str:
        """Write down the kernel, how far to believe it, and what the images cannot tell.

        Parameters
        ----------
        source, result : (rows, cols) array_like of real numbers, or sequences of them, optional
            The images of `judge`, both or neither. Without them those that were fitted, as far as
            they live, or else nothing is said of what the kernel leaves.
        format : {"text", "html"}, optional
            Lines of text; or one page that needs no other file, with pictures of the taps, their
            error bars, the residual, its spectrum, what smaller kernels leave, and the patterns of
            taps that the source tells least of.
        path : str or path-like, optional
            A file to write it to as well, in UTF-8; it is overwritten.
        title : str, optional
            What stands above; by default the size of the kernel.
        boundary, channel_axis, pair, used, workers : optional
            As in `judge`. Of several pairs that of ``pair``, or the first, is pictured.
        selection : KernelShapeSelection, optional
            What chose the size of the kernel, where the fit did not: its curve is shown.
        verdict : Verdict, optional
            What is said of the kernel, instead of what `judge` says.

        Returns
        -------
        str
            The report.

        Raises
        ------
        ImportError
            If matplotlib is missing, for ``format="html"``; the extra ``fastkernel[plot]``
            installs it.
        OSError
            If ``path`` cannot be written.
        TypeError, ValueError
            If one image is given without the other, ``format`` is unknown, or as `judge`.

        Examples
        --------
        >>> import numpy as np
        >>> from fastkernel import estimate_kernel
        >>> image = np.random.default_rng(0).random((60, 60))
        >>> fit = estimate_kernel(image, image[1:-1, 1:-1], 3)
        >>> print(fit.report().splitlines()[1])
        verdict: believe it
        """
        chosen = as_choice(format, "format", FORMATS)
        images = _both(source, result, "report")
        if images:
            pairs = _pairs_of(self, *images, boundary, channel_axis, pair, used)
        else:
            pairs = _recalled(self)
        from fastkernel.estimation.report.contents import contents_of
        from fastkernel.estimation.report.looks import Look

        look = None
        if pairs:
            look = Look([part.window.shape for part in pairs], (pair or 0) if len(pairs) > 1 else 0)
            facts = _facts_of(self, pairs, pair, workers, look)
            verdict = verdict or _judged(self, facts)
        contents = contents_of(
            self,
            self._facts() | bars_fact(self.kernel, self.standard_errors),
            title=title,
            verdict=verdict or vars(self).get("quality"),
            look=look,
            selection=selection or (self.found and self.found.kernel_shape),
        )
        if chosen == "html":
            from fastkernel.estimation.report.page import as_page as written
        else:
            from fastkernel.estimation.report.text import as_text as written
        text = written(contents)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def _facts(self: _Fit) -> dict[str, str]:
        end = "converged" if self.converged else "not converged"
        facts = {
            "kernel": "{}×{}, taps sum to {:.6g}".format(*self.kernel.shape, self.kernel.sum()),
            "method": f"{self.method}, {self.solver}, {end}",
            "residual": f"{self.residual_rms:.4g} rms over {self.n_pixels} pixels",
            "condition number": f"{self.condition_number:.2g}",
        }
        facts |= iterations_fact(self.num_iter, self.converged)
        if self.ridge:
            facts["ridge"] = f"{self.ridge:.4g}"
        if self.background is not None:
            facts["background"] = background_fact(self.background)
        if self.light == "srgb":
            facts["light"] = "linear (sRGB decoded), black 0 and white 1"
        if self.offset != (0, 0):
            facts["offset"] = "the result was moved by {} rows and {} columns".format(*self.offset)
        if self.found is not None:
            facts |= self.found.lines()
        return facts

    def __repr__(self: _Fit) -> str:
        return answer_text("KernelFit", self._facts(), self.kernel, vars(self).get("quality"))

    def _repr_html_(self: _Fit) -> str:
        facts = self._facts() | bars_fact(self.kernel, self.standard_errors)
        # A verdict is shown once it is there: it costs passes over the pixels.
        verdict = vars(self).get("quality")
        return answer_html(facts, self.kernel, plot_fit, self, verdict=verdict)


def _both(source: Any, result: Any, name: str) -> tuple[Any, Any] | None:
    """Return both images, or None where none is given; ValueError if only one is."""
    if source is not None and result is not None:
        return source, result
    if source is None and result is None:
        return None
    missing = "result" if result is None else "source"
    msg = f"{name} needs both images to show the residual, got no {missing}; pass it, or none"
    raise ValueError(msg)


def _recalled(fit: _Fit) -> list[Pair]:
    """Return the pairs that were fitted; none where an image is gone."""
    images = [part.images.recalled() for part in fit._fitted]
    return [
        Pair(*pair, part.window, part.used)
        for pair, part in zip(images, fit._fitted, strict=True)
        if pair is not None and None not in images
    ]


def _pairs_of(
    fit: _Fit,
    source: Any,
    result: Any,
    boundary: Border | None,
    channel_axis: int | None,
    pair: int | None,
    used: Any,
) -> list[Pair]:
    """Return images as pairs to compare, without the pixels that the fit left out."""
    p, q = fit.kernel.shape
    pairs = pairs_to_compare(source, result, (p, q), boundary, channel_axis, used, fit._crop)
    if used is not None:
        return pairs
    fitted = fit._fitted if pair is None else fit._fitted[pair : pair + 1]
    if len(fitted) != len(pairs):
        return pairs
    return [
        with_mask(own, part.used)
        if (part.result_shape, part.window) == (own.result.shape, own.window)
        else own
        for own, part in zip(pairs, fitted, strict=True)
    ]


def _facts_of(
    fit: _Fit, pairs: Sequence[Pair], pair: int | None, workers: int | None, look: Look | None
) -> Facts:
    """Measure what a fit leaves of pairs, and look at it on the way."""
    limits = limits_of(pairs)
    planes = planes_of(fit, pairs, pair=pair, limits=limits, workers=as_workers(workers))
    seen = (plane for _, plane in planes) if look is None else look.watch(planes)
    facts = facts_of(seen, limits=limits, robust=fit.method == "lad")
    refuse_unusable(pairs, np.zeros(1), np.zeros(1), facts.rms)
    return facts


def _judged(fit: _Fit, facts: Facts, *, lossy: bool = False) -> Verdict:
    return judge(
        fit.kernel,
        fit.standard_errors,
        facts,
        residual_rms=fit.residual_rms if fit.light == "stored" else None,
        condition_number=fit.condition_number,
        converged=fit.converged,
        lossy=lossy,
        left_out=left_out(fit),
    )


def left_out(fit: _Fit) -> float:
    """Return which share of the pixels that belong together a fit left out."""
    total = sum(part.window.n_pixels for part in fit._fitted)
    return 1 - fit.n_pixels / total if total else 0.0

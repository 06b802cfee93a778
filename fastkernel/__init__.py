"""Recover the convolution kernel that turned one image into another; convolve, and undo it.

The public names are imported when they are first used, so that ``import fastkernel`` costs
little more than NumPy.

Glossary
--------

**Kernel**: the small array of weights, its *taps*, of a convolution; of shape (rows, cols). Also
called convolution matrix, mask, filter, point spread function (PSF) or impulse response.

**Convolution** turns the kernel by half a turn and slides it over the image; **correlation** slides
it as it is. Here, and in SciPy and MATLAB's ``conv2``, "convolve" turns it. OpenCV's ``filter2D``,
GIMP, neural networks and ``imfilter`` correlate under the name of convolution or filter.

**Full, same, valid**: all pixels that any tap reaches; those of the image's frame; those for which
no pixel beyond the frame is needed.

**Centre tap**: the tap that lies on the pixel that is made, in "same". Here, and in
``scipy.signal``, it is ``((p - 1) // 2, (q - 1) // 2)``; for even sides ``scipy.ndimage``, OpenCV
and scikit-image take ``(p // 2, q // 2)``.

**Border rule**: what is taken to stand beyond the frame. The same rules have many names:

| fastkernel | abcd then | scipy.ndimage | scipy.signal | numpy.pad | OpenCV | MATLAB |
| --- | --- | --- | --- | --- | --- | --- |
| zero | 00 | constant, grid-constant | fill | constant | BORDER_CONSTANT | 0 |
| circular | ab | wrap, grid-wrap | wrap | wrap | BORDER_WRAP | circular |
| replicate | dd | nearest | - | edge | BORDER_REPLICATE | replicate |
| symmetric | dc | reflect, grid-mirror | symm | symmetric | BORDER_REFLECT | symmetric |
| mirror | cb | mirror | - | reflect | BORDER_REFLECT_101 | - |

All these words are understood, but for a bare "reflect", which means two things.

**Light**: what a lens blurs and a sensor counts. Files of 8 and 16 bits hold *levels*, most often
of sRGB, which are no multiple of it; a filter works on one or the other, and a fit must know on
which (``light=`` of `estimate_kernel`).
"""

# To a type checker it is that of typing, which takes ten times as long to import as all of this.
TYPE_CHECKING = False

__version__ = "0.2.0"

_HOME = {
    "ImageMatch": "estimation.difference.image_match",
    "InverseFit": "estimation.inverse.inverse_kernel",
    "KernelField": "estimation.fields.kernel_field",
    "KernelFit": "estimation.fit",
    "KernelShapeSelection": "estimation.unknowns.kernel_shape",
    "KernelStack": "estimation.stacks.kernel_stack",
    "MatchFlag": "estimation.difference.image_match",
    "NormalEquations": "estimation.equations.normal_equations",
    "SingularFitError": "estimation.errors",
    "circshift": "convolution.shift",
    "convolution_matrix": "convolution.matrix",
    "convolution_operator": "convolution.operator",
    "convolve": "convolution.convolve",
    "correlate": "convolution.convolve",
    "design_matrix": "convolution.matrix",
    "estimate_kernel": "estimation.estimate",
    "estimate_kernel_field": "estimation.fields.estimate_kernel_field",
    "estimate_kernels": "estimation.stacks.estimate_kernels",
    "fftshift": "convolution.shift",
    "gcv_balance": "restoration.linear_filters",
    "ifftshift": "convolution.shift",
    "inverse_filter": "restoration.linear_filters",
    "inverse_kernel": "estimation.inverse.inverse_kernel",
    "match_images": "estimation.difference.match_images",
    "normal_equations": "estimation.equations.formed",
    "residual_equations": "estimation.equations.residual",
    "restore_tiled": "restoration.tiled",
    "richardson_lucy": "restoration.richardson_lucy",
    "select_kernel_shape": "estimation.unknowns.kernel_shape",
    "warm_up": "_warm",
    "wiener": "restoration.linear_filters",
}

__all__ = [
    "ImageMatch",
    "InverseFit",
    "KernelField",
    "KernelFit",
    "KernelShapeSelection",
    "KernelStack",
    "MatchFlag",
    "NormalEquations",
    "SingularFitError",
    "basis",
    "circshift",
    "convolution_matrix",
    "convolution_operator",
    "convolve",
    "correlate",
    "design_matrix",
    "estimate_kernel",
    "estimate_kernel_field",
    "estimate_kernels",
    "fftshift",
    "gcv_balance",
    "ifftshift",
    "inverse_filter",
    "inverse_kernel",
    "match_images",
    "normal_equations",
    "psf",
    "residual_equations",
    "restore_tiled",
    "richardson_lucy",
    "select_kernel_shape",
    "warm_up",
    "wiener",
]

if TYPE_CHECKING:
    from fastkernel import basis as basis
    from fastkernel import psf as psf
    from fastkernel._warm import warm_up as warm_up
    from fastkernel.convolution.convolve import convolve as convolve
    from fastkernel.convolution.convolve import correlate as correlate
    from fastkernel.convolution.matrix import convolution_matrix as convolution_matrix
    from fastkernel.convolution.matrix import design_matrix as design_matrix
    from fastkernel.convolution.operator import convolution_operator as convolution_operator
    from fastkernel.convolution.shift import circshift as circshift
    from fastkernel.convolution.shift import fftshift as fftshift
    from fastkernel.convolution.shift import ifftshift as ifftshift
    from fastkernel.estimation.difference.image_match import ImageMatch as ImageMatch
    from fastkernel.estimation.difference.image_match import MatchFlag as MatchFlag
    from fastkernel.estimation.difference.match_images import match_images as match_images
    from fastkernel.estimation.equations.formed import normal_equations as normal_equations
    from fastkernel.estimation.equations.normal_equations import NormalEquations as NormalEquations
    from fastkernel.estimation.equations.residual import residual_equations as residual_equations
    from fastkernel.estimation.errors import SingularFitError as SingularFitError
    from fastkernel.estimation.estimate import estimate_kernel as estimate_kernel
    from fastkernel.estimation.fields.estimate_kernel_field import (
        estimate_kernel_field as estimate_kernel_field,
    )
    from fastkernel.estimation.fields.kernel_field import KernelField as KernelField
    from fastkernel.estimation.fit import KernelFit as KernelFit
    from fastkernel.estimation.inverse.inverse_kernel import InverseFit as InverseFit
    from fastkernel.estimation.inverse.inverse_kernel import inverse_kernel as inverse_kernel
    from fastkernel.estimation.stacks.estimate_kernels import estimate_kernels as estimate_kernels
    from fastkernel.estimation.stacks.kernel_stack import KernelStack as KernelStack
    from fastkernel.estimation.unknowns.kernel_shape import (
        KernelShapeSelection as KernelShapeSelection,
    )
    from fastkernel.estimation.unknowns.kernel_shape import (
        select_kernel_shape as select_kernel_shape,
    )
    from fastkernel.restoration.linear_filters import gcv_balance as gcv_balance
    from fastkernel.restoration.linear_filters import inverse_filter as inverse_filter
    from fastkernel.restoration.linear_filters import wiener as wiener
    from fastkernel.restoration.richardson_lucy import richardson_lucy as richardson_lucy
    from fastkernel.restoration.tiled import restore_tiled as restore_tiled


# A type checker must not see it: a module that answers to any name hides misspelt ones.
if not TYPE_CHECKING:

    def _imported(name):
        from fastkernel._loops._unbroken import import_whole

        return import_whole(f"fastkernel.{name}")

    def __getattr__(name: str):
        if name in ("basis", "psf"):  # modules of functions
            return _imported(name)
        if name not in _HOME:
            msg = f"module 'fastkernel' has no attribute {name!r}"
            raise AttributeError(msg)
        value = getattr(_imported(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)

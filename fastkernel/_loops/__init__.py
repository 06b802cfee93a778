"""Jitted loops, the lowest floor of the package.

"Loop" names jitted code here, so that "kernel" only ever means the convolution kernel. A loop
checks nothing, allocates no result and starts no thread.

Comes in: arrays of few types and plain numbers, which the caller has checked.
Goes out: what is written into arrays of the caller's, or returned as numbers.
May import: NumPy, Numba, llvmlite, and of fastkernel nothing but this folder.

The flags of compilation stand beside the loops, and what a loop calls stands in its own file:
Numba's disk cache notices changes to that file alone. Exceptions are `_processor`, which can
change no answer, and what others are written in: `_lanes`, `_march`, `_cascade`,
`_column_transforms` and `_reading`.

Shared:

- `_jit`: compilation that neither a broken cache, nor Ctrl-C, nor a fork can stop
- `_lanes`: vectors as values of loops
- `_march`: the innermost loop of all lagged products, as vectors of LLVM
- `_cascade`: that of the products of spectra, with sums of sums
- `_column_transforms`: passes of Fourier transforms down the columns of a panel
- `_reading`: pixels of images as they stand, cast into scratch
- `_unbroken`: what neither Ctrl-C nor a fork may break off
- `_processor`: the width of a register, and ways of moving pixels past and between the caches

Convolution:

- `circular`: circular convolution of pairs of tiles by fast Fourier transforms
- `matrix`: the entries of convolution matrices, and of design matrices
- `passes`: which passes a transform of `circular` takes, with their tables; not compiled
- `shift`: circular shift of rows of bytes
- `stencil`: direct convolution of a tile
- `tile_copies`: tiles read from an image, with zeros beyond it, and written into one

Estimation:

- `equations`: factors of the equations of kernels of some hundred taps, and what these tell
- `conjugate`: what stands between the products of conjugate gradients
- `design_rows`: products of rows of the design matrix, of chosen pixels or of whole stamps
- `descent`: steps of gradient descent, projected onto what a kernel may be
- `deviations`: sums over residuals whose absolute values are to be small
- `lags`: products of images at all lags, from which normal equations are assembled
- `moments`: weighted sums of the rows of a tile
- `ratios`: a result over what a kernel makes of the source, for multiplicative updates
- `rims`: a Gram matrix from its base entries and the image's rim
- `small_systems`: many small systems of normal equations, solved one after the other
- `spectra`: sums over the pixels or the frequencies of whole images, and their quotient

Restoration:

- `cross_validation`: the balance of least score of generalised cross-validation
- `filters`: regularised filters of the transforms of an image, and conjugate gradients on them
- `margins`: rows that continue an image beyond its border, and parts of a periodic one
- `richardson_lucy`: what an iteration does to a tile between its two convolutions
"""

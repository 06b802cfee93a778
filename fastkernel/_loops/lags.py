"""Lagged products of images: the sums over pixels from which normal equations are assembled.

A loop checks nothing, allocates no result, starts no thread and calls only this file. Scratch is
C-ordered float64, or int16 where both images hold integers of at most 8 bits.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import DTypeLike

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf, so a NaN pixel reaches the sums, where the caller finds it.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

# Lags of one pass: 3 * 5 accumulators, 8 window vectors and a few operands fit 32 registers.
MAX_LAGS = 5

# Sums of one shift and lag: moments, ahead, across (see `add_tile`). A march takes the first
# one, two or all three.
KINDS = 3


def _register_bytes() -> int:
    features = binding.get_host_cpu_features()
    return next((size for name, size in (("avx512f", 64), ("avx", 32)) if features.get(name)), 16)


VECTOR_BYTES = _register_bytes()


def vector_lanes(dtype: DTypeLike) -> int:
    """Return how many pixels of ``dtype`` one vector holds."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def sums_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of the lane sums of scratch of ``dtype``."""
    return np.dtype(np.int32 if dtype == np.int16 else np.float64)


def sums_shape(kernel_shape: tuple[int, int], dtype: DTypeLike) -> tuple[int, int, int]:
    """Return the shape of the lane sums that `add_tile` works in."""
    p, q = kernel_shape
    return q, KINDS * p, VECTOR_BYTES // sums_dtype(dtype).itemsize


def _march_plain(x, y, row, col, shift, lag, height, width, kinds, n, sums):
    """March as `_march` does, in NumPy: what runs when the JIT is off."""
    lanes = vector_lanes(x.dtype)
    inside = np.arange(col, col + lanes) < width

    def column(image, first, left):
        return image[first : first + height, left : left + lanes].astype(sums.dtype)

    for i in range(n):
        ahead = np.where(inside, column(x, row + lag + i, col + shift), 0)
        here = np.where(inside, column(x, row, col + shift), 0)
        pairs = (
            (ahead, column(y, row, col)),
            (ahead, column(x, row, col)),
            (column(x, row + lag + i, col), here),
        )
        for kind in range(kinds):
            a, b = pairs[kind]
            # An integer product is twice as wide as its factors: neighbours share a lane.
            sums[kind * n + i] += (a * b).sum(axis=0).reshape(sums.shape[-1], -1).sum(axis=1)


class _March:
    """Emits the code of one march: a column of vectors, walked down row by row.

    Every accumulator stays in a register from the first row to the last, and a pixel that serves
    several lags is loaded once and handed from row to row. Written as a plain loop the sums would
    be folded at the end of every row, and LLVM's vectoriser would not block over lags: 8 to 20
    thousand million multiply-adds a second where this reaches 35 (float64) and 90 (int16).
    The vectors are plain LLVM vectors, so any processor can run them.
    """

    def __init__(self, context, builder, signature, args):
        x, y, sums = (
            cgutils.create_struct_proxy(signature.args[i])(context, builder, value=args[i])
            for i in (0, 1, 10)
        )
        self.builder = builder
        self.index = ir.IntType(64)
        pixel = context.get_data_type(signature.args[0].dtype)
        total = context.get_data_type(signature.args[10].dtype)
        self.bytes = context.get_abi_sizeof(pixel)
        self.lanes = VECTOR_BYTES // self.bytes
        self.integer = isinstance(pixel, ir.IntType)
        self.vector = ir.VectorType(pixel, self.lanes)
        self.total = ir.VectorType(total, VECTOR_BYTES // context.get_abi_sizeof(total))
        self.x, self.y, self.sums = x.data, y.data, sums.data
        self.x_stride, self.y_stride, self.sums_stride = (
            cgutils.unpack_tuple(builder, array.shape)[-1] for array in (x, y, sums)
        )
        self.row, self.col, shift, self.lag, self.height, width = args[2:8]
        self.ahead_col = builder.add(self.col, shift)
        self.inside = self._lanes_before(builder.sub(width, self.col))

    def _lanes_before(self, count):
        """Return the mask of the lanes whose number is below ``count``."""
        b = self.builder
        wide = ir.VectorType(self.index, self.lanes)
        empty = ir.Constant(wide, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None)
        first = b.insert_element(empty, count, ir.Constant(ir.IntType(32), 0))
        numbers = ir.Constant(wide, [ir.Constant(self.index, i) for i in range(self.lanes)])
        return b.icmp_signed("<", numbers, b.shuffle_vector(first, empty, zeros))

    def _number(self, value):
        return ir.Constant(self.index, value)

    def _load(self, data, stride, row, col):
        b = self.builder
        address = b.gep(data, [b.add(b.mul(row, stride), col)])
        return b.load(b.bitcast(address, self.vector.as_pointer()), align=self.bytes)

    def _at(self, row):
        return self._load(self.x, self.x_stride, row, self.col)

    def _ahead(self, row):
        # Lanes past the tile's last column are zeroed in one factor of every product.
        vector = self._load(self.x, self.x_stride, row, self.ahead_col)
        return self.builder.select(self.inside, vector, ir.Constant(self.vector, None))

    def _multiply_add(self, total, a, b):
        builder = self.builder
        if not self.integer:
            product = builder.fmul(a, b, flags=["contract"])
            return builder.fadd(total, product, flags=["contract"])
        # Sixteen-bit products, neighbours added: one instruction where the processor has one.
        wide = ir.VectorType(self.total.element, self.lanes)
        product = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
        picks = ir.VectorType(ir.IntType(32), self.total.count)
        empty = ir.Constant(wide, ir.Undefined)
        even, odd = (
            builder.shuffle_vector(
                product,
                empty,
                ir.Constant(
                    picks, [ir.Constant(ir.IntType(32), 2 * i + k) for i in range(picks.count)]
                ),
            )
            for k in (0, 1)
        )
        return builder.add(total, builder.add(even, odd))

    def emit(self, n, kinds):
        """Emit the march over ``n`` lags and ``kinds`` sums, and continue after it."""
        b, number = self.builder, self._number
        crossed = kinds == KINDS
        lowest = b.add(self.row, self.lag)
        window = [self._ahead(b.add(lowest, number(i))) for i in range(n - 1)]
        crossed_window = [self._at(b.add(lowest, number(i))) for i in range(n - 1) if crossed]
        places = [
            b.bitcast(
                b.gep(self.sums, [b.mul(number(i), self.sums_stride)]), self.total.as_pointer()
            )
            for i in range(kinds * n)
        ]
        start = [b.load(place, align=4) for place in places]
        before, body = b.block, b.append_basic_block("march")
        after = b.append_basic_block("marched")
        b.branch(body)
        b.position_at_end(body)

        def carried(values):
            slots = [b.phi(value.type) for value in values]
            for slot, value in zip(slots, values, strict=True):
                slot.add_incoming(value, before)
            return slots

        row = carried([self.row])[0]
        held, crossed_held, totals = carried(window), carried(crossed_window), carried(start)
        newest = b.add(b.add(row, self.lag), number(n - 1))
        ahead = [*held, self._ahead(newest)]
        y = self._load(self.y, self.y_stride, row, self.col)
        factors = [(v, y) for v in ahead]
        if kinds > 1:
            x = self._at(row)
            factors += [(v, x) for v in ahead]
        if crossed:
            across, here = [*crossed_held, self._at(newest)], self._ahead(row)
            factors += [(v, here) for v in across]
        done = [
            self._multiply_add(total, *pair) for total, pair in zip(totals, factors, strict=True)
        ]
        following = b.add(row, number(1))
        row.add_incoming(following, body)
        handed = [*ahead[1:], *(across[1:] if crossed else []), *done]
        for slot, value in zip([*held, *crossed_held, *totals], handed, strict=True):
            slot.add_incoming(value, body)
        b.cbranch(b.icmp_signed("<", following, b.add(self.row, self.height)), body, after)
        b.position_at_end(after)
        for place, value in zip(places, done, strict=True):
            b.store(value, place, align=4)


def _march_typed(typing_context, x, y, row, col, shift, lag, height, width, kinds, n, sums):  # noqa: ARG001
    """March down a column of vectors and add its lagged products to ``sums[: kinds * n]``."""
    args = (x, y, *[types.intp] * 8, sums)

    def codegen(context, builder, signature, values):
        march = _March(context, builder, signature, values)
        kinds, n = values[8:10]
        whole = builder.add(builder.mul(kinds, ir.Constant(kinds.type, MAX_LAGS + 1)), n)
        end = builder.append_basic_block("end")
        switch = builder.switch(whole, end)
        for case_kinds in range(1, KINDS + 1):
            for case_n in range(1, MAX_LAGS + 1):
                block = builder.append_basic_block(f"march_{case_kinds}_{case_n}")
                switch.add_case(case_kinds * (MAX_LAGS + 1) + case_n, block)
                builder.position_at_end(block)
                march.emit(case_n, case_kinds)
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(*args), codegen


_march = _march_plain if config.DISABLE_JIT else intrinsic(_march_typed)


@_loop
def add_tile(x, y, tile_shape, kinds, sums, out):
    r"""Add the lagged products of one tile to ``out`` and return the energy of ``y`` in it.

    Parameters
    ----------
    x : (>= height + p - 1, >= width + q - 1 rounded up to whole vectors) float64 or int16 array
        The source under the tile, C order. Whole vectors are read: pad the rows with numbers.
    y : (>= height, >= width rounded up to whole vectors) array of x's dtype
        The result under the tile, C order.
    tile_shape : (int, int)
        ``(height, width)`` of the tile, in output pixels.
    kinds : int
        1 for the moments alone, 3 for all.
    sums : `sums_shape` array of `sums_dtype`
        Working space. Integer sums are exact while `int16_tile_is_exact` holds.
    out : (3, p, q) float64 array
        Accumulator, updated in place.

    Returns
    -------
    float
        The sum of the squares of ``y`` over the tile.

    Notes
    -----
    With `t` over the tile,

    .. math:: \mathrm{out}_{0ij} \mathrel{+}= \sum_t y_t\, x_{t+(i,j)}, \quad
              \mathrm{out}_{1ij} \mathrel{+}= \sum_t x_t\, x_{t+(i,j)}, \quad
              \mathrm{out}_{2ij} \mathrel{+}= \sum_t x_{t+(0,j)}\, x_{t+(i,0)},

    the last only for ``j > 0``. Cost: ``3pq - p`` multiply-adds per pixel.
    """
    height, width = tile_shape
    p, q = out.shape[1:]
    lanes = VECTOR_BYTES // x.itemsize
    sums[:] = 0
    for col in range(0, width, lanes):
        for shift in range(q):
            k = kinds if shift > 0 else min(kinds, 2)
            for lag in range(0, p, MAX_LAGS):
                n = min(MAX_LAGS, p - lag)
                place = sums[shift, KINDS * lag :]
                _march(x, y, 0, col, shift, lag, height, width, k, n, place)
    for shift in range(q):
        k = kinds if shift > 0 else min(kinds, 2)
        for lag in range(0, p, MAX_LAGS):
            n = min(MAX_LAGS, p - lag)
            for kind in range(k):
                for i in range(n):
                    total = 0.0
                    for lane in range(sums.shape[2]):
                        total += sums[shift, KINDS * lag + kind * n + i, lane]
                    out[kind, lag + i, shift] += total
    energy = 0.0
    for r in range(height):
        row = y[r][:width]
        for c in range(width):
            energy += np.float64(row[c]) * np.float64(row[c])
    return energy


def int16_tile_is_exact(tile_shape: tuple[int, int], largest_product: int) -> bool:
    """Return whether `add_tile` on int16 scratch cannot overflow its 32-bit lanes.

    A lane adds two products a row for every vector of the tile's width.

    Examples
    --------
    >>> int16_tile_is_exact((256, 512), 255 * 255)
    True
    """
    rows, cols = tile_shape
    vectors = -(-cols // vector_lanes(np.int16))
    return 2 * rows * vectors * largest_product < 2**31

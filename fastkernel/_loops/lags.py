"""Lagged products of images: the sums over pixels from which normal equations are assembled.

A loop checks nothing, allocates no result, starts no thread and calls only this file. Scratch is
C-ordered float64, or int16 where both images hold integers of at most 8 bits.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable
from numpy.typing import DTypeLike, NDArray

from fastkernel._loops._jit import loop
from fastkernel._loops._lanes import LANES, alike, load, store
from fastkernel._loops._processor import REGISTERS, VECTOR_BYTES

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf, so a NaN pixel reaches the sums, where the caller finds it.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

# Lags of one pass: 3 * 5 accumulators, 8 window vectors and a few operands fit 32 registers. Half
# as many hold those of 3 lags of three kinds, or of 4 of two; where what is read does not stay in
# the first cache, more lags a reading are worth more than that.
MAX_LAGS = 5
_TILE_LAGS, _LINE_LAGS = (5, 5) if REGISTERS == 32 else (3, 4)

# Vectors of a cache line.
SIDE = max(1, 64 // VECTOR_BYTES)

# The sums that a march can take of each lag (see `add_tiles`), as bits.
MOMENTS, AHEAD, ACROSS, SWAPPED = 1, 2, 4, 8
KINDS = 3


@register_jitable
def lag_groups(count: int, most: int) -> list[tuple[int, int]]:
    """Return the groups in which ``count`` lags are marched, as (first lag, lags): of even size.

    A march of few lags has too few sums under way to keep the multipliers busy.
    """
    n = -(-count // most)
    return [(i * count // n, (i + 1) * count // n - i * count // n) for i in range(n)]


def vector_lanes(dtype: DTypeLike) -> int:
    """Return how many pixels of ``dtype`` one vector holds."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def sums_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of the lane sums of scratch of ``dtype``."""
    return np.dtype(np.int32 if dtype == np.int16 else np.float64)


def sums_shape(kernel_shape: tuple[int, int], dtype: DTypeLike) -> tuple[int, int, int]:
    """Return the shape of the lane sums that `add_tiles` works in."""
    p, q = kernel_shape
    return q, KINDS * p, VECTOR_BYTES // sums_dtype(dtype).itemsize


def _march_plain(x, y, row, col, shift, lag, height, width, kinds, n, sums):
    """March as `_march` does, in NumPy: what runs when the JIT is off."""
    lanes = vector_lanes(x.dtype)
    inside = np.arange(col, col + lanes) < width

    def column(image, first, left):
        return image[first : first + height, left : left + lanes].astype(sums.dtype)

    place = 0
    for kind in (MOMENTS, AHEAD, ACROSS, SWAPPED):
        for i in range(n if kinds & kind else 0):
            ahead = np.where(inside, column(x, row + lag + i, col + shift), 0)
            here = np.where(inside, column(x, row, col + shift), 0)
            a, b = {
                MOMENTS: (ahead, column(y, row, col)),
                AHEAD: (ahead, column(x, row, col)),
                ACROSS: (column(x, row + lag + i, col), here),
                SWAPPED: (ahead, column(y, row, col)[:, np.arange(lanes) ^ 1]),
            }[kind]
            # An integer product is twice as wide as its factors: neighbours share a lane.
            found = (a * b).sum(axis=0).reshape(VECTOR_BYTES // sums.itemsize, -1).sum(axis=1)
            sums[place, : len(found)] += found
            place += 1


# The sets of sums that the loops below ask for, and of how many lags at most.
_CASES = {
    MOMENTS: MAX_LAGS,
    MOMENTS | AHEAD: _TILE_LAGS,
    MOMENTS | ACROSS: _LINE_LAGS,
    MOMENTS | AHEAD | ACROSS: _TILE_LAGS,
    MOMENTS | SWAPPED: MAX_LAGS,
}


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
        self.x_stride, self.y_stride = (
            cgutils.unpack_tuple(builder, array.shape)[-1] for array in (x, y)
        )
        # The sums may be part of wider rows.
        self.sums_stride = builder.sdiv(
            cgutils.unpack_tuple(builder, sums.strides)[-2],
            ir.Constant(self.index, context.get_abi_sizeof(total)),
        )
        self.row, self.col, shift, self.lag, self.height, width = args[2:8]
        self.ahead_col = builder.add(self.col, shift)
        self.inside = self._lanes_before(builder.sub(width, self.col))

    def _lanes_before(self, count):
        """Return the mask of the lanes whose number is below ``count``: all bits set, or none.

        Read from a table, it stays in one register, where what a comparison finds is widened
        again in every turn of the loop.
        """
        b, lanes = self.builder, self._number(self.lanes)
        bits = ir.IntType(8 * self.bytes)
        table = ir.ArrayType(bits, 2 * self.lanes)
        known = ir.Constant(table, [-1] * self.lanes + [0] * self.lanes)
        place = cgutils.global_constant(b, f"lanes_of_{self.bytes}", known)
        count = b.select(b.icmp_signed("<", count, lanes), count, lanes)
        start = b.bitcast(place, bits.as_pointer())
        address = b.gep(start, [b.sub(lanes, count)])
        mask = ir.VectorType(bits, self.lanes)
        return b.load(b.bitcast(address, mask.as_pointer()), align=self.bytes)

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
        b, vector = self.builder, self._load(self.x, self.x_stride, row, self.ahead_col)
        bits = b.and_(b.bitcast(vector, self.inside.type), self.inside)
        return b.bitcast(bits, self.vector)

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

    def _swapped(self, vector):
        """Return a vector of complex numbers with real and imaginary parts exchanged."""
        number = ir.IntType(32)
        order = [ir.Constant(number, i ^ 1) for i in range(self.lanes)]
        picks = ir.Constant(ir.VectorType(number, self.lanes), order)
        return self.builder.shuffle_vector(vector, ir.Constant(self.vector, ir.Undefined), picks)

    def emit(self, n, kinds):
        """Emit the march over ``n`` lags that takes ``kinds`` of sums, and continue after it."""
        b, number = self.builder, self._number
        crossed, n_kinds = bool(kinds & ACROSS), kinds.bit_count()
        lowest = b.add(self.row, self.lag)
        window = [self._ahead(b.add(lowest, number(i))) for i in range(n - 1)]
        crossed_window = [self._at(b.add(lowest, number(i))) for i in range(n - 1) if crossed]
        places = [
            b.bitcast(
                b.gep(self.sums, [b.mul(number(i), self.sums_stride)]), self.total.as_pointer()
            )
            for i in range(n_kinds * n)
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
        factors = []
        if kinds & MOMENTS:
            y = self._load(self.y, self.y_stride, row, self.col)
            factors += [(v, y) for v in ahead]
        if kinds & AHEAD:
            x = self._at(row)
            factors += [(v, x) for v in ahead]
        if crossed:
            across, here = [*crossed_held, self._at(newest)], self._ahead(row)
            factors += [(v, here) for v in across]
        if kinds & SWAPPED:
            swapped = self._swapped(y)
            factors += [(v, swapped) for v in ahead]
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


def _march_typed(typing_context, x, y, row, col, shift, lag, height, width, kinds, n, sums):
    """March down a column of vectors and add its lagged products to ``sums``, kind by kind."""
    args = (x, y, *[types.intp] * 8, sums)

    def codegen(context, builder, signature, values):
        march = _March(context, builder, signature, values)
        kinds, n = values[8:10]
        whole = builder.add(builder.mul(kinds, ir.Constant(kinds.type, MAX_LAGS + 1)), n)
        end = builder.append_basic_block("end")
        switch = builder.switch(whole, end)
        for case_kinds, most in _CASES.items():
            # Integers have no spectra.
            for case_n in range(1, 1 if march.integer and case_kinds & SWAPPED else most + 1):
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
def add_tiles(x, y, tile_shape, everything, sums, out):
    r"""Add the lagged products of tiles to ``out``, each to its own.

    Parameters
    ----------
    x : (n, >= height + p - 1, >= width + q - 1 rounded up to whole vectors) array
        The source under each tile, float64 or int16, C order. Whole vectors are read: pad the
        rows with numbers.
    y : (n, >= height, >= width rounded up to whole vectors) array of x's dtype
        The result under each tile, C order.
    tile_shape : (int, int)
        ``(height, width)`` of the tiles, in output pixels.
    everything : bool
        False for the moments alone.
    sums : `sums_shape` array of `sums_dtype`
        Working space. Integer sums are exact while no 32-bit lane overflows.
    out : (n, 3, p, q) float64 array
        Accumulators, updated in place.

    Notes
    -----
    With `t` over a tile,

    .. math:: \mathrm{out}_{0ij} \mathrel{+}= \sum_t y_t\, x_{t+(i,j)}, \quad
              \mathrm{out}_{1ij} \mathrel{+}= \sum_t x_t\, x_{t+(i,j)}, \quad
              \mathrm{out}_{2ij} \mathrel{+}= \sum_t x_{t+(0,j)}\, x_{t+(i,0)},

    the last only for ``j > 0``. Cost: ``3pq - p`` multiply-adds per pixel.
    """
    height, width = tile_shape
    p, q = out.shape[2:]
    lanes = VECTOR_BYTES // x.itemsize
    groups = lag_groups(p, _TILE_LAGS if everything else MAX_LAGS)
    for tile in range(len(x)):
        source, result, found = x[tile], y[tile], out[tile]
        sums[:] = 0
        for col in range(0, width, lanes):
            for shift in range(q):
                kinds = MOMENTS
                if everything:
                    kinds = MOMENTS | AHEAD | ACROSS if shift > 0 else MOMENTS | AHEAD
                for lag, n in groups:
                    place = sums[shift, KINDS * lag :]
                    _march(source, result, 0, col, shift, lag, height, width, kinds, n, place)
        for shift in range(q):
            n_kinds = (KINDS if shift > 0 else 2) if everything else 1
            for lag, n in groups:
                for kind in range(n_kinds):
                    for i in range(n):
                        total = 0.0
                        for lane in range(sums.shape[2]):
                            total += sums[shift, KINDS * lag + kind * n + i, lane]
                        found[kind, lag + i, shift] += total


@_loop
def add_line_products(lines, length, block, sums, out):
    r"""Add the lagged products of every pair of lines to ``out``.

    Parameters
    ----------
    lines : (>= length + lags - 1, >= n rounded up to whole vectors, twice) float64 array
        The lines side by side, one a column, C order. Whole vectors are read: pad with numbers.
    length : int
        Number of positions to sum over.
    block : int
        Positions to march over at a time.
    sums : (2 * MAX_LAGS, lanes) float64 array
        Working space.
    out : (lags, n, n) float64 array
        Accumulator, updated in place.

    Notes
    -----
    .. math:: \mathrm{out}_{juv} \mathrel{+}= \sum_{t < \mathrm{length}} l_{t,u}\, l_{t+j,v}

    Cost: ``lags * n**2`` multiply-adds a position. A tile's march over the lines beside
    themselves, its lanes kept apart: lane `u` at shift `s` holds the pair `(u, u + s)`.
    """
    lags, n = out.shape[0], out.shape[1]
    lanes = sums.shape[1]
    groups = lag_groups(lags, _LINE_LAGS)
    for row in range(0, length, block):
        height = min(block, length - row)
        for col in range(0, n, lanes):
            for shift in range(n - col):
                for lag, m in groups:
                    sums[:] = 0
                    _march(lines, lines, row, col, shift, lag, height, n, MOMENTS | ACROSS, m, sums)
                    for i in range(m):
                        for u in range(col, min(col + lanes, n - shift)):
                            out[lag + i, u, u + shift] += sums[i, u - col]
                            if shift > 0:
                                out[lag + i, u + shift, u] += sums[m + i, u - col]


@_loop
def add_row_correlations(wide, own, answer, height, own_out, answer_out):
    r"""Add the products of the spectra of rows, at all lags of rows, to two accumulators.

    Parameters
    ----------
    wide : (>= height + p - 1, n) float64 array
        Spectra of rows, real and imaginary parts in turn; ``n`` a whole number of vectors.
    own, answer : (>= height, n) float64 arrays
        Spectra of the rows that they are correlated with.
    height : int
        Number of rows to correlate.
    own_out, answer_out : (2 * p, n) float64 arrays
        Accumulators, updated in place; `row_correlations` reads them.

    Notes
    -----
    .. math:: \sum_{t < \mathrm{height}} \overline{c_{tf}}\, w_{t+i,\,f}

    Four real products make a complex one; they are summed as they come, element by element with
    ``c`` as it is and with its parts swapped. Cost: ``8 * p`` multiply-adds an element.
    """
    p, n = own_out.shape[0] // 2, own_out.shape[1]
    lanes = VECTOR_BYTES // wide.itemsize
    kinds = MOMENTS | SWAPPED
    groups = lag_groups(p, MAX_LAGS)
    for col in range(0, n, lanes):
        for lag, m in groups:
            _march(wide, own, 0, col, 0, lag, height, n, kinds, m, own_out[2 * lag :, col:])
            _march(wide, answer, 0, col, 0, lag, height, n, kinds, m, answer_out[2 * lag :, col:])


@_loop
def add_weighted_row_correlations(wide, own, weights, height, lines, weighted, out):
    r"""Add the products of the spectra of rows, at all lags of rows, by several weights of rows.

    Parameters
    ----------
    wide : (>= height + p - 1, m, side, lanes) float64 array
        Spectra of rows, real and imaginary parts in turn, by cache lines of ``side`` vectors.
    own : (>= height, m, side, lanes) float64 array
        Spectra of the rows that they are correlated with.
    weights : (k, height) float64 array
        Those of these rows.
    height : int
        Number of rows to correlate.
    lines, weighted : (>= height + p - 1, side, lanes) float64 arrays
        Working space: what is below each other stands side by side there.
    out : (m, side, k, 2 * p, lanes) float64 array
        Accumulators, updated in place; `weighted_row_correlations` reads them.

    Notes
    -----
    .. math:: \sum_{t < \mathrm{height}} w_{kt}\, \overline{c_{tf}}\, x_{t+i,\,f}

    Summed as by `add_row_correlations`. Cost: ``k * (4 * p + 1)`` multiply-adds an element.
    """
    m, side, k_weights, p = wide.shape[1], out.shape[1], out.shape[2], out.shape[3] // 2
    groups, kinds = lag_groups(p, MAX_LAGS), MOMENTS | SWAPPED
    above, beside = lines.reshape(len(lines), -1), weighted.reshape(len(weighted), -1)
    for line in range(m):
        for r in range(height + p - 1):
            for v in range(side):
                store(lines, r * side + v, load(wide, (r * m + line) * side + v))
        for k in range(k_weights):
            for r in range(height):
                weight = alike(weights[k, r])
                for v in range(side):
                    store(weighted, r * side + v, weight * load(own, (r * m + line) * side + v))
            for v in range(side):
                for lag, n in groups:
                    col, part = v * LANES, out[line, v, k, 2 * lag :]
                    width = col + LANES
                    _march(above, beside, 0, col, 0, lag, height, width, kinds, n, part)


def weighted_row_correlations(out: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return the sums of `add_weighted_row_correlations` as complex numbers, (k, p, n // 2)."""
    rows = np.moveaxis(out, (2, 3), (0, 1))
    return np.array([row_correlations(part.reshape(len(part), -1)) for part in rows])


def row_correlations(out: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return the sums of `add_row_correlations` as complex numbers, (p, n // 2)."""
    p = len(out) // 2
    found = np.empty((p, out.shape[1] // 2), np.complex128)
    for lag, n in lag_groups(p, MAX_LAGS):
        straight, swapped = out[2 * lag : 2 * lag + n], out[2 * lag + n : 2 * lag + 2 * n]
        found.real[lag : lag + n] = straight[:, ::2] + straight[:, 1::2]
        found.imag[lag : lag + n] = swapped[:, 1::2] - swapped[:, ::2]
    return found


@_loop
def energy(image, tile_shape):
    """Return the sum of the squares of a tile.

    Parameters
    ----------
    image : (>= height, >= width) float64 or int16 array
        The pixels, C order.
    tile_shape : (int, int)
        ``(height, width)`` of the tile.

    Returns
    -------
    float
        Exact for whole numbers while it is below 2**53.

    Notes
    -----
    Cost: one multiply-add a pixel.
    """
    height, width = tile_shape
    total = 0.0
    for r in range(height):
        row = image[r][:width]
        for c in range(width):
            total += np.float64(row[c]) * np.float64(row[c])
    return total

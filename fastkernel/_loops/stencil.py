"""Direct convolution of tiles.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

import numpy as np
from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable
from numpy.typing import DTypeLike

from fastkernel._loops._jit import loop
from fastkernel._loops._processor import copy

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf: a NaN pixel must reach every output that it touches, and no other.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

# Rows of outputs that are summed at a time. With four vectors of each, 16 sums are under way:
# a tap that is loaded serves four vectors, a vector four taps, and the multipliers are never idle.
MAX_ROWS = 4


def _registers() -> tuple[int, int]:
    """Return the bytes of a vector register, and the number of vectors of a row of four."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 4
    return (32 if features.get("avx") else 16), 2


VECTOR_BYTES, _VECTORS = _registers()

# Bytes of a panel: what is computed side by side. One row alone needs more to fill the pipes.
PANEL_BYTES = 2 * _VECTORS * VECTOR_BYTES


def _vectors(n_rows):
    return 2 * _VECTORS if n_rows == 1 else _VECTORS


def _correlate_block_plain(x, row, col, taps, out, out_row, out_col, count, n_rows):
    """Correlate as `_correlate_block` does, in NumPy: what runs when the JIT is off."""
    p, q = taps.shape
    width = min(count, _vectors(n_rows) * VECTOR_BYTES // x.itemsize)
    total = np.zeros((n_rows, width), x.dtype)
    for i in range(p):
        part = np.zeros_like(total)
        for j in range(q):
            top, left = row + i, col + j
            part += taps[i, j] * x[top : top + n_rows, left : left + width]
        total += part
    out[out_row : out_row + n_rows, out_col : out_col + width] = total


class _Block:
    """Emits the code that correlates one block of outputs, its sums held in registers.

    Written as a plain loop the sums would go to memory and back for every tap or every few: 12 to
    50 thousand million multiply-adds a second on two cores where this reaches 73 on one
    (float32). The vectors are plain LLVM vectors, so any processor can run them.
    """

    def __init__(self, context, builder, signature, args):
        x, taps, out = (
            cgutils.create_struct_proxy(signature.args[i])(context, builder, value=args[i])
            for i in (0, 3, 4)
        )
        self.builder = builder
        self.index = ir.IntType(64)
        pixel = context.get_data_type(signature.args[0].dtype)
        self.bytes = context.get_abi_sizeof(pixel)
        self.lanes = VECTOR_BYTES // self.bytes
        self.vector = ir.VectorType(pixel, self.lanes)
        self.x, self.taps, self.out = x.data, taps.data, out.data
        self.x_stride, self.out_stride = (
            cgutils.unpack_tuple(builder, array.shape)[-1] for array in (x, out)
        )
        self.p, self.q = cgutils.unpack_tuple(builder, taps.shape)
        self.row, self.col = args[1:3]
        self.out_row, self.out_col, self.count = args[5:8]

    def _number(self, value):
        return ir.Constant(self.index, value)

    def _everywhere(self, value, vector):
        """Return a vector with ``value`` in every lane."""
        b, number = self.builder, ir.IntType(32)
        empty = ir.Constant(vector, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(number, vector.count), None)
        first = b.insert_element(empty, value, ir.Constant(number, 0))
        return b.shuffle_vector(first, empty, zeros)

    def _row_of(self, data, stride, row, col):
        b = self.builder
        return b.gep(data, [b.add(b.mul(row, stride), col)])

    def _add_row(self, i, tap_rows, sums):
        """Add the products of the input row ``i`` to the sums of some output rows.

        ``tap_rows`` holds, for the number of each such output row, its row of taps. They are
        summed before they join the rest: one long sum would round more.
        """
        b = self.builder
        pixels = self._row_of(self.x, self.x_stride, b.add(self.row, i), self.col)
        taps = {r: b.gep(self.taps, [b.mul(row, self.q)]) for r, row in tap_rows.items()}
        before, body = b.block, b.append_basic_block("taps")
        after = b.append_basic_block("taps_done")
        b.branch(body)
        b.position_at_end(body)
        j = b.phi(self.index)
        j.add_incoming(self._number(0), before)
        carried = {r: [b.phi(self.vector) for _ in sums[r]] for r in taps}
        vectors = [
            b.load(
                b.bitcast(
                    b.gep(pixels, [b.add(j, self._number(v * self.lanes))]),
                    self.vector.as_pointer(),
                ),
                align=self.bytes,
            )
            for v in range(len(sums[0]))
        ]
        parts, zero = {}, ir.Constant(self.vector, None)
        following = b.add(j, self._number(1))
        for r, tap_row in taps.items():
            tap = self._everywhere(b.load(b.gep(tap_row, [j])), self.vector)
            parts[r] = [
                b.fadd(part, b.fmul(tap, vector, flags=["contract"]), flags=["contract"])
                for part, vector in zip(carried[r], vectors, strict=True)
            ]
            for slot, value in zip(carried[r], parts[r], strict=True):
                slot.add_incoming(zero, before)
                slot.add_incoming(value, body)
        j.add_incoming(following, body)
        b.cbranch(b.icmp_signed("<", following, self.q), body, after)
        b.position_at_end(after)
        # Without a flag of its own it would get those of the loop, and its bits would depend on
        # what it is compiled with.
        return sums | {
            r: [b.fadd(*both, flags=["nsz"]) for both in zip(sums[r], part, strict=True)]
            for r, part in parts.items()
        }

    def _add_whole_rows(self, n_rows, sums):
        """Add the products of the input rows that reach every output row of the block."""
        b = self.builder
        before, body = b.block, b.append_basic_block("rows")
        after = b.append_basic_block("rows_done")
        b.branch(body)
        b.position_at_end(body)
        i = b.phi(self.index)
        i.add_incoming(self._number(n_rows - 1), before)
        carried = {r: [b.phi(self.vector) for _ in sums[r]] for r in sums}
        done = self._add_row(i, {r: b.sub(i, self._number(r)) for r in sums}, carried)
        following = b.add(i, self._number(1))
        i.add_incoming(following, b.block)
        for r, slots in carried.items():
            for slot, first, value in zip(slots, sums[r], done[r], strict=True):
                slot.add_incoming(first, before)
                slot.add_incoming(value, b.block)
        b.cbranch(b.icmp_signed("<", following, self.p), body, after)
        b.position_at_end(after)
        return done

    def _store(self, sums):
        """Store the sums of the columns that are asked for."""
        b = self.builder
        wide = ir.VectorType(self.index, self.lanes)
        mask_type = ir.VectorType(ir.IntType(1), self.lanes)
        align = ir.Constant(ir.IntType(32), self.bytes)
        count = self._everywhere(self.count, wide)
        signature = ir.FunctionType(
            ir.VoidType(), [self.vector, self.vector.as_pointer(), align.type, mask_type]
        )
        name = f"llvm.masked.store.v{self.lanes}f{8 * self.bytes}.p0"
        store = cgutils.get_or_insert_function(b.module, signature, name)
        for r, totals in sums.items():
            row = b.add(self.out_row, self._number(r))
            place = self._row_of(self.out, self.out_stride, row, self.out_col)
            for v, total in enumerate(totals):
                first = v * self.lanes
                lanes = ir.Constant(wide, [self._number(first + i) for i in range(self.lanes)])
                pointer = b.bitcast(b.gep(place, [self._number(first)]), self.vector.as_pointer())
                b.call(store, [total, pointer, align, b.icmp_signed("<", lanes, count)])

    def emit(self, n_rows):
        """Emit the block of ``n_rows`` outputs, and continue after it.

        The first and the last input rows reach some of them only; none is multiplied by zero,
        which would spread a NaN.
        """
        b, number = self.builder, self._number
        zero = ir.Constant(self.vector, None)
        sums = {r: [zero] * _vectors(n_rows) for r in range(n_rows)}
        for i in range(n_rows - 1):
            sums = self._add_row(number(i), {r: number(i - r) for r in range(i + 1)}, sums)
        sums = self._add_whole_rows(n_rows, sums)
        for i in range(n_rows - 1):
            rest = {r: b.add(self.p, number(i - r)) for r in range(i + 1, n_rows)}
            sums = self._add_row(b.add(self.p, number(i)), rest, sums)
        self._store(sums)


def _correlate_block_typed(
    typing_context,
    x,
    row,
    col,
    taps,
    out,
    out_row,
    out_col,
    count,
    n_rows,
):
    """Write ``n_rows`` rows, no more than the taps have, of at most ``count`` columns."""
    place = types.intp
    args = (x, place, place, taps, out, place, place, place, place)

    def codegen(context, builder, signature, values):
        block = _Block(context, builder, signature, values)
        end = builder.append_basic_block("end")
        switch = builder.switch(values[8], end)
        for n in range(1, MAX_ROWS + 1):
            case = builder.append_basic_block(f"rows_{n}")
            switch.add_case(n, case)
            builder.position_at_end(case)
            block.emit(n)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(*args), codegen


_correlate_block = (
    _correlate_block_plain if config.DISABLE_JIT else intrinsic(_correlate_block_typed)
)


def row_length(cols: int, dtype: DTypeLike) -> int:
    """Return the length of the rows of scratch that `correlate_tile` reads ``cols`` of.

    Room for a panel, whole cache lines, and no stride of a multiple of 4096 bytes, at which rows
    would compete for the same few places of the cache.
    """
    pixels = 64 // np.dtype(dtype).itemsize
    length = -(-(cols + PANEL_BYTES // np.dtype(dtype).itemsize) // pixels) * pixels
    return length + pixels if length * np.dtype(dtype).itemsize % 4096 == 0 else length


# Bytes of a row that are gone through before the next rows: what a few rows hold of them stays in
# the first-level cache, and is long enough for the processor to look ahead.
_RUN_BYTES = 2048


@register_jitable
def _correlate(x, first, start, taps, height, width, out, top, left):
    """Do what `correlate_tile` says."""
    n_rows = min(MAX_ROWS, height, taps.shape[0])
    panel, run = PANEL_BYTES // x.itemsize, _RUN_BYTES // x.itemsize
    if n_rows > 1:
        panel //= 2
    for begin in range(0, width, run):
        for above in range(0, height, n_rows):
            row = min(above, height - n_rows)
            for col in range(begin, min(begin + run, width), panel):
                place, out_place = (first + row, start + col), (top + row, left + col)
                _correlate_block(x, *place, taps, out, *out_place, width - col, n_rows)


@_loop
def correlate_tile(x, origin, taps, tile_shape, out, top, left):
    r"""Write the correlation of ``x`` with ``taps`` into a tile of ``out``.

    Parameters
    ----------
    x : (>= r + height + p - 1, >= c + width + q - 1) float32 or float64 array
        The image under the tile, C order. Whole panels are read (`PANEL_BYTES`), past the end of
        a row and of the last one: memory must go on there, what it holds does not matter.
    origin : (int, int)
        Row ``r`` and column ``c`` of ``x`` that the first output is made of.
    taps : (p, q) array of x's dtype
        A kernel, flipped both ways where a convolution is wanted; C order.
    tile_shape : (int, int)
        ``(height, width)`` of the tile, in output pixels.
    out : array of x's dtype
        Overwritten in the tile; C order.
    top, left : int
        Where the tile begins in ``out``.

    Notes
    -----
    .. math:: \mathrm{out}_{rc} = \sum_{ij} g_{ij}\, x_{r+i,\,c+j}

    Cost: ``p * q`` multiply-adds a pixel. The last block of rows and of columns is moved up to
    the tile's end, or cut: an output may be computed twice, with the same result.
    """
    (height, width), (first, start) = tile_shape, origin
    _correlate(x, first, start, taps, height, width, out, top, left)


# Columns from which on they are read where they stand: rims take as long as whole panels do.
_LEAST_RUN = 512


@register_jitable
def _read(x, rows, cols, first, last, fill, out):
    """Copy what stands at some rows and columns of an image, see `read_part`."""
    for r in range(len(rows)):
        row, part = rows[r], out[r]
        if row < 0:
            part[: len(cols)] = fill
            continue
        if last > first:
            place = row * x.shape[1] + cols[first]
            copy(x, place, out, r * out.shape[1] + first, last - first)
        for c in range(first):
            part[c] = x[row, cols[c]] if cols[c] >= 0 else fill
        for c in range(last, len(cols)):
            part[c] = x[row, cols[c]] if cols[c] >= 0 else fill


@register_jitable
def _within(first, last, length):
    """Return the part of a range that lies within a length, empty ones at its end."""
    first = min(max(first, 0), length)
    return first, max(min(last, length), first)


@register_jitable
def _part(number, first, last, length):
    """Return what lies before, in and behind a range."""
    edges = (0, first, last, length)
    return edges[number], edges[number + 1]


@_loop
def correlate_image(x, places, inside, fill, taps, column, tiles, room, out, origin):
    r"""Write the correlation of an image, continued beyond its frame, into tiles of ``out``.

    Parameters
    ----------
    x : (m, n) float32 or float64 array
        The image, C order.
    places : (rows, cols), each a 1-D int array
        Which row and column of the image stands at each place that the window sees, negative for
        what is filled.
    inside : (4,) int array
        Half-open ranges of the places whose rows, and whose columns, follow each other in ``x``.
    fill : x's dtype
        What stands where there is no pixel.
    taps : (p, q) array of x's dtype
        A kernel, flipped both ways where a convolution is wanted; C order.
    column : (p, 1) or (0, 1) array of x's dtype
        The other factor, if ``taps`` is the row of a kernel of rank one.
    tiles : (n, 4) int array
        ``(top, left, height, width)`` of each, in pixels of the window.
    room : (array, array)
        Working space of x's dtype: for a tile with what is around it, and one for its sums down
        the columns; rows of `row_length`.
    out : array of x's dtype
        Overwritten in the tiles; C order.
    origin : (int, int)
        Pixel of the window that stands first in ``out``.

    Notes
    -----
    The sums of `correlate_tile`, twice with a ``column``. The rims of a tile that reach beyond the
    frame are copied, all else is read where it stands. Cost: ``p * q`` multiply-adds a pixel, or
    ``p + q``.
    """
    (rows, cols), (around, between), apart = places, room, len(column) > 0
    down = (column if apart else taps).shape[0] - 1
    beside, spare = taps.shape[1] - 1, PANEL_BYTES // x.itemsize
    for number in range(len(tiles)):
        tile = tiles[number]
        top, left, height, width = tile[0], tile[1], tile[2], tile[3]
        # Outputs of which all pixels stand in the image, one beside the other.
        above, below = _within(inside[0] - top, inside[1] - down - top, height)
        first, last = _within(inside[2] - left, inside[3] - beside - left, width)
        if below > above and last > first:
            end = (rows[top + below + down - 1] * x.shape[1]) + cols[left + last + beside - 1] + 1
            below -= max(0, -((x.size - end - spare) // x.shape[1]))
        if last - first < min(_LEAST_RUN, width) or below <= above:
            above, below, first, last = height, height, width, width
        for part in range(9):
            start, stop = _part(part // 3, above, below, height)
            begin, finish = _part(part % 3, first, last, width)
            if start >= stop or begin >= finish:
                continue
            under = rows[top + start : top + stop + down]
            across = cols[left + begin : left + finish + beside]
            wide, tall, row, col = finish - begin, stop - start, under[0], across[0]
            pixels = x
            if part != 4:
                left_in = inside[2] - left - begin
                row_in = _within(left_in, inside[3] - left - begin, len(across))
                _read(x, under, across, row_in[0], row_in[1], fill, around)
                pixels, row, col = around, 0, 0
            to, at = top + start - origin[0], left + begin - origin[1]
            if apart:
                _correlate(pixels, row, col, column, tall, wide + beside, between, 0, 0)
                _correlate(between, 0, 0, taps, tall, wide, out, to, at)
            else:
                _correlate(pixels, row, col, taps, tall, wide, out, to, at)

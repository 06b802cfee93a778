"""The march: a column of vectors of two images, walked down row by row for many lags at once.

The innermost loop of all lagged products, written as LLVM's vectors. Numba's cache does not notice
a change to this file: remove it after one.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable
from numpy.typing import DTypeLike

from fastkernel._loops._processor import REGISTERS, VECTOR_BYTES

# Lags of one pass: 3 * 5 accumulators, 8 window vectors and a few operands fit 32 registers. Half
# as many hold those of 3 lags of three kinds, or of 4 of two; where what is read does not stay in
# the first cache, more lags a reading are worth more than that.
MAX_LAGS = 5
TILE_LAGS, LINE_LAGS = (5, 5) if REGISTERS == 32 else (3, 4)

# The sums that a march can take of each lag (see `lags.add_tiles`), as bits.
MOMENTS, AHEAD, ACROSS = 1, 2, 4


@register_jitable
def lag_group(group: int, groups: int, count: int) -> tuple[int, int]:
    """Return the first of the lags that are marched together, and how many these are.

    All groups of ``count`` lags have nearly one size: a march of few lags has too few sums under
    way to keep the multipliers busy.
    """
    first = group * count // groups
    return first, (group + 1) * count // groups - first


def vector_lanes(dtype: DTypeLike) -> int:
    """Return how many pixels of ``dtype`` one vector holds."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def _march_plain(x, y, row, col, shift, lag, height, width, kinds, n, sums):
    """March as the others do, in NumPy: what runs when the JIT is off."""
    lanes = vector_lanes(x.dtype)
    inside = np.arange(col, col + lanes) < width

    def column(image, first, left):
        return image[first : first + height, left : left + lanes].astype(sums.dtype)

    place = 0
    for kind in (MOMENTS, AHEAD, ACROSS):
        for i in range(n if kinds & kind else 0):
            ahead = np.where(inside, column(x, row + lag + i, col + shift), 0)
            here = np.where(inside, column(x, row, col + shift), 0)
            a, b = {
                MOMENTS: (ahead, column(y, row, col)),
                AHEAD: (ahead, column(x, row, col)),
                ACROSS: (column(x, row + lag + i, col), here),
            }[kind]
            # An integer product is twice as wide as its factors: neighbours share a lane.
            found = (a * b).sum(axis=0).reshape(VECTOR_BYTES // sums.itemsize, -1).sum(axis=1)
            sums[place, : len(found)] += found
            place += 1


class _March:
    """Emits the code of one march: a column of vectors, walked down row by row.

    Every accumulator stays in a register from the first row to the last, and a pixel that serves
    several lags is loaded once and handed from row to row. Written as a plain loop the sums would
    be folded at the end of every row, and LLVM's vectoriser would not block over lags: 8 to 20
    thousand million multiply-adds a second where this reaches 35 (float64) and 90 (int16).
    The vectors are plain LLVM vectors, so any processor can run them.
    """

    def __init__(self, builder, pixel, total, size, args):
        self.builder = builder
        self.index = ir.IntType(64)
        self.bytes = size
        self.lanes = VECTOR_BYTES // size
        self.integer = isinstance(pixel, ir.IntType)
        self.vector = ir.VectorType(pixel, self.lanes)
        # An integer product is twice as wide as its factors.
        count = self.lanes // 2 if self.integer else self.lanes
        self.total = ir.VectorType(total, count)
        self.x, self.y, self.sums, self.x_stride, self.y_stride, self.sums_stride = args[:6]
        self.row, self.col, shift, self.lag, self.height, width = args[6:12]
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


def _function(module, pixel, total, size, cases, kinds_of_args):
    """Return the function of a module that marches, made when it is first called there.

    Not inlined: code that stands in several places is compiled in each of them.
    """
    name = f"march_{size}_" + "_".join(f"{kinds}{most}" for kinds, most in cases.items())
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds_of_args), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    *args, kinds, n = function.args
    emitted = _March(b, pixel, total, size, args)
    whole = b.add(b.mul(kinds, ir.Constant(kinds.type, MAX_LAGS + 1)), n)
    end = b.append_basic_block("end")
    switch = b.switch(whole, end)
    for case_kinds, most in cases.items():
        for case_n in range(1, most + 1):
            block = b.append_basic_block(f"march_{case_kinds}_{case_n}")
            switch.add_case(case_kinds * (MAX_LAGS + 1) + case_n, block)
            b.position_at_end(block)
            emitted.emit(case_n, case_kinds)
            b.branch(end)
    b.position_at_end(end)
    b.ret_void()
    return function


def _march_over(cases: dict[int, int]) -> Any:
    """Return the march that takes some sets of sums, of so many lags at most."""

    def typed(typing_context, x, y, row, col, shift, lag, height, width, kinds, n, sums):
        """March down a column of vectors and add its lagged products to ``sums``, kind by kind."""
        args = (x, y, *[types.intp] * 8, sums)

        def codegen(context, b, signature, values):
            arrays = x, y, sums = [
                cgutils.create_struct_proxy(signature.args[i])(context, b, value=values[i])
                for i in (0, 1, 10)
            ]
            pixel, total = (context.get_data_type(signature.args[i].dtype) for i in (0, 10))
            strides = [cgutils.unpack_tuple(b, array.shape)[-1] for array in (x, y)]
            # The sums may be part of wider rows.
            apart = cgutils.unpack_tuple(b, sums.strides)[-2]
            strides.append(b.sdiv(apart, ir.Constant(apart.type, context.get_abi_sizeof(total))))
            given = [*(array.data for array in arrays), *strides, *values[2:10]]
            size, kinds_of_args = context.get_abi_sizeof(pixel), [value.type for value in given]
            function = _function(b.module, pixel, total, size, cases, kinds_of_args)
            b.call(function, given)
            return context.get_dummy_value()

        return types.void(*args), codegen

    return _march_plain if config.DISABLE_JIT else intrinsic(typed)


march_tile = _march_over(
    {MOMENTS: MAX_LAGS, MOMENTS | AHEAD: TILE_LAGS, MOMENTS | AHEAD | ACROSS: TILE_LAGS}
)
march_lines = _march_over({MOMENTS | ACROSS: LINE_LAGS})

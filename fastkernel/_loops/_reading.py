"""Pixels of images as they stand in memory, cast into scratch.

Images are bytes with a number for their dtype, so that a loop is compiled once for all of these.
Numba's cache does not notice a change to this file: remove it after one.
"""

from typing import Any, TypeAlias

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable
from numpy.typing import NDArray

from fastkernel._loops._processor import ROWS_AHEAD, fetch

# The dtypes; a pixel of each has twice as many bytes as of the one before.
KINDS = tuple(map(np.dtype, (np.uint8, np.uint16, np.float32, np.float64)))

# All pixels of an image as bytes, row after row; the place of its dtype in `KINDS`; how far rows
# are apart, in pixels.
Image: TypeAlias = tuple[NDArray[np.uint8], int, int]


def _cast_plain(pixels, kind, start, count, out, out_start):
    """Cast as `_cast_typed` does, in NumPy: what runs when the JIT is off."""
    found = pixels.view(KINDS[kind])[start : start + count]
    out.reshape(-1)[out_start : out_start + count] = found


def _cast_typed(typing_context, pixels, kind, start, count, out, out_start):
    """Cast some pixels, one after the other, into a C-ordered array."""
    i = types.intp

    def codegen(context, b, signature, values):
        pixels, out = (
            cgutils.create_struct_proxy(signature.args[k])(context, b, value=values[k]).data
            for k in (0, 4)
        )
        _, kind, start, count, _, out_start = values
        to = context.get_data_type(signature.args[4].dtype)
        byte, short, single, double = ir.IntType(8), ir.IntType(16), ir.FloatType(), ir.DoubleType()
        casts = {
            byte: b.zext if isinstance(to, ir.IntType) else b.uitofp,
            short: b.uitofp,
            single: b.fpext,
            double: b.bitcast,
        }
        end = b.append_basic_block("end")
        switch = b.switch(kind, end)
        for number, (pixel, cast) in enumerate(casts.items()):
            if number > 0 and isinstance(to, ir.IntType):
                break
            block = b.append_basic_block(f"cast_{number}")
            switch.add_case(ir.Constant(kind.type, number), block)
            b.position_at_end(block)
            given = b.gep(b.bitcast(pixels, pixel.as_pointer()), [start])
            into = b.gep(out, [out_start])
            with cgutils.for_range(b, count) as turn:
                value = b.load(b.gep(given, [turn.index]), align=1 << number)
                b.store(cast(value, to), b.gep(into, [turn.index]))
            b.branch(end)
        b.position_at_end(end)
        return context.get_dummy_value()

    return types.void(pixels, i, i, i, out, i), codegen


cast_pixels: Any = _cast_plain if config.DISABLE_JIT else intrinsic(_cast_typed)


@register_jitable
def read_part(image, rows, cols, first, last, out):
    """Cast what stands at some rows and columns of an image, and zeros right of them.

    Parameters
    ----------
    image : Image
        If a number is cast to int16, it has 8 bits.
    rows, cols : 1-D int arrays
        Negative for zeros.
    first, last : int
        Half-open range of the columns that follow each other in the image.
    out : (>= rows, >= cols) float64 or int16 array
        C order. Overwritten.
    """
    pixels, kind, stride = image
    width, wide = len(cols), out.shape[1]
    for r in range(len(rows)):
        row, inside = rows[r] * stride, last - first if rows[r] >= 0 else 0
        if inside > 0:
            if r + ROWS_AHEAD < len(rows):
                ahead = rows[r + ROWS_AHEAD] * stride + cols[first]
                fetch(pixels, ahead << kind, inside << kind)
            cast_pixels(pixels, kind, row + cols[first], inside, out, r * wide + first)
        for place in range(width - inside):
            col = place if place < first else place + inside
            if rows[r] >= 0 and cols[col] >= 0:
                cast_pixels(pixels, kind, row + cols[col], 1, out, r * wide + col)
            else:
                out[r, col] = 0
        out[r, width:] = 0


def _squares_plain(row):
    """Add up squares as `_squares_typed` does, in NumPy: what runs when the JIT is off."""
    return float(np.sum(np.square(row, dtype=np.float64)))


def _squares_typed(typing_context, row):
    """Return the sum of the squares of a tile's row.

    Of int16 in 32 bits, which hold those of 33 000 numbers of 8 bits.
    """

    def codegen(context, b, signature, values):
        array = cgutils.create_struct_proxy(signature.args[0])(context, b, value=values[0])
        pixel, double = context.get_data_type(signature.args[0].dtype), ir.DoubleType()
        wide = ir.IntType(32) if isinstance(pixel, ir.IntType) else double
        total = cgutils.alloca_once_value(b, ir.Constant(wide, 0))
        flags = ["reassoc", "contract", "nsz"]
        with cgutils.for_range(b, array.nitems) as turn:
            value = b.load(b.gep(array.data, [turn.index]))
            if wide is double:
                square = b.fmul(value, value, flags=flags)
                b.store(b.fadd(b.load(total), square, flags=flags), total)
            else:
                value = b.sext(value, wide)
                b.store(b.add(b.load(total), b.mul(value, value)), total)
        found = b.load(total)
        return found if wide is double else b.sitofp(found, double)

    return types.float64(row), codegen


sum_of_squares: Any = _squares_plain if config.DISABLE_JIT else intrinsic(_squares_typed)

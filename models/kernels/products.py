"""Matrix products of any size on lanes, for kernels that keep a tile of rows in the cache.

`multiply` is C = start + A B on float32 rows. Sums stay in registers while the inner index runs,
which numba's own vectoriser does not manage (`uic.models.kernels.lanes`); A may be read transposed,
by its two strides, so the same code makes the sums over rows of a gradient.
"""

from typing import Any, Final

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from uic.models.kernels.lanes import LANES, LANES_TYPE

_FLOAT: Final = ir.FloatType()
_INT32: Final = ir.IntType(32)
_INT64: Final = ir.IntType(64)
_VECTOR: Final = ir.VectorType(_FLOAT, LANES)


def _fma(builder: Any, *args: Any) -> Any:
    signature = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fma.v{LANES}f32")
    return builder.call(function, args)


def _vector(builder: Any, pointer: Any) -> Any:
    value = builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()))
    value.align = 4
    return value


def _tile(rows: int, vectors: int) -> Any:
    """An intrinsic: `rows` rows of C and `vectors` lanes of each, all sums in registers.

    `c[first_c + r * row_c + 16 v:] = start[first_s + r * row_s + 16 v:] + sum over k < count of
    a[first_a + r * row_a + k * step_a] * b[first_b + k * step_b + 16 v:]`, indices in floats.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, c, start = (
            context.make_array(signature.args[index])(context, builder, args[index]).data
            for index in (0, 4, 7, 10)
        )
        first_a, row_a, step_a, first_b, step_b = (args[index] for index in (1, 2, 3, 5, 6))
        first_c, row_c, first_s, row_s, count = (args[index] for index in (8, 9, 11, 12, 13))

        def place(base: Any, first: Any, row: Any, number: int, lane: int = 0) -> Any:
            offset = builder.add(first, builder.mul(row, ir.Constant(_INT64, number)))
            return builder.gep(base, [builder.add(offset, ir.Constant(_INT64, lane * LANES))])

        cells = [(row, lane) for row in range(rows) for lane in range(vectors)]
        initial = [_vector(builder, place(start, first_s, row_s, row, lane)) for row, lane in cells]
        before = builder.block
        header = builder.append_basic_block("product")
        body = builder.append_basic_block("product.body")
        after = builder.append_basic_block("product.end")
        builder.branch(header)
        builder.position_at_end(header)
        k = builder.phi(_INT64)
        k.add_incoming(ir.Constant(_INT64, 0), before)
        sums = [builder.phi(_VECTOR) for _ in cells]
        for total, value in zip(sums, initial, strict=True):
            total.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<", k, count), body, after)
        builder.position_at_end(body)
        here_b = builder.add(first_b, builder.mul(k, step_b))
        right = [_vector(builder, place(b, here_b, step_b, 0, lane)) for lane in range(vectors)]
        here_a = builder.add(first_a, builder.mul(k, step_a))
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
        moved: list[Any] = []
        for row in range(rows):
            scalar = builder.load(place(a, here_a, row_a, row))
            first = builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
            left = builder.shuffle_vector(first, undefined, everywhere)
            terms = zip(right, sums[row * vectors :], strict=False)
            moved += [_fma(builder, left, value, before_it) for value, before_it in terms]
        following = builder.add(k, ir.Constant(_INT64, 1))
        k.add_incoming(following, body)
        for total, value in zip(sums, moved, strict=True):
            total.add_incoming(value, body)
        builder.branch(header)
        builder.position_at_end(after)
        for (row, lane), total in zip(cells, sums, strict=True):
            pointer = place(c, first_c, row_c, row, lane)
            builder.store(total, builder.bitcast(pointer, _VECTOR.as_pointer())).align = 4
        return context.get_dummy_value()

    integer = types.int64

    def typed(
        typing_context: Any,
        a: Any,
        first_a: Any,
        row_a: Any,
        step_a: Any,
        b: Any,
        first_b: Any,
        step_b: Any,
        c: Any,
        first_c: Any,
        row_c: Any,
        start: Any,
        first_s: Any,
        row_s: Any,
        count: Any,
    ) -> Any:
        places_a, places_b = (integer, integer, integer), (integer, integer)
        signature = types.void(
            a, *places_a, b, *places_b, c, integer, integer, start, integer, integer, integer
        )
        return signature, generate

    return intrinsic(typed)


@intrinsic
def total(typing_context, value):
    """Sum of the sixteen; Lanes -> float32."""

    def generate(context, builder, signature, args):
        name = f"llvm.vector.reduce.fadd.v{LANES}f32"
        kind = ir.FunctionType(_FLOAT, [_FLOAT, _VECTOR])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        # Any order of the sixteen: in sequence it would be sixteen dependent adds.
        return builder.call(function, [ir.Constant(_FLOAT, 0.0), args[0]], fastmath=("reassoc",))

    return types.float32(LANES_TYPE), generate


def _columns(vectors: int, rows_at_once: int) -> Any:
    """A function for `16 * vectors` columns of C from column `at`, `rows_at_once` rows at once.

    As many sums as registers hold, with those of B and one of A.
    """
    several, single = _tile(rows_at_once, vectors), _tile(1, vectors)

    def columns(a, row_a, step_a, b, c, start, row_s, rows, count, width, at):
        row = 0
        while row + rows_at_once <= rows:
            several(
                a, row * row_a, row_a, step_a, b, at, width,
                c, row * width + at, width, start, row * row_s + at, row_s, count,
            )  # fmt: skip
            row += rows_at_once
        while row < rows:
            single(
                a, row * row_a, row_a, step_a, b, at, width,
                c, row * width + at, width, start, row * row_s + at, row_s, count,
            )  # fmt: skip
            row += 1

    # Of one name, functions that two processes compiled are mixed up when their code is linked:
    # numba tells them apart by the order in which a process made them.
    columns.__qualname__ = f"_columns_{vectors * LANES}"
    return njit(error_model="numpy")(columns)


_eighty, _forty_eight = _columns(5, 4), _columns(3, 8)
_thirty_two, _sixteen = _columns(2, 8), _columns(1, 8)


@njit(error_model="numpy")
def multiply(a, row_a, step_a, b, c, start, row_s, rows, count, width):
    """C = start + A B, row by row: 95 to 114 GFLOP/s on a core whose `torch.mm` reaches 94.

    Args:
        a: A[r, k] is float number `r * row_a + k * step_a`.
        row_a: floats from a row of A to the next.
        step_a: floats from a column of A to the next.
        b: (count, width), contiguous, as c.
        c: (rows, width), written; may be `start`.
        start: row r is at float number `r * row_s`.
        row_s: `width`, or 0 for one row that all begin with.
        rows: of A and C.
        count: columns of A, rows of B.
        width: of B and C, a multiple of 16.
    """
    at = 0
    while at < width:
        left = width - at
        if left % 80 == 0:
            _eighty(a, row_a, step_a, b, c, start, row_s, rows, count, width, at)
            at += 80
        elif left >= 48:
            _forty_eight(a, row_a, step_a, b, c, start, row_s, rows, count, width, at)
            at += 48
        elif left >= 32:
            _thirty_two(a, row_a, step_a, b, c, start, row_s, rows, count, width, at)
            at += 32
        else:
            _sixteen(a, row_a, step_a, b, c, start, row_s, rows, count, width, at)
            at += 16

"""Sixteen rows of sixteen float32, turned: columns become rows, in registers."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from uic.models.kernels.lanes import LANES

_VECTOR = ir.VectorType(ir.FloatType(), LANES)


@intrinsic
def turn(typing_context, a, first_a, row_a, b, first_b, row_b):
    """b[first_b + k row_b + e] = a[first_a + e row_a + k] for e, k < 16; places in floats."""

    def generate(context, builder, signature, args):
        source, target = (
            context.make_array(signature.args[index])(context, builder, args[index]).data
            for index in (0, 3)
        )

        def place(base, first, row, number):
            offset = builder.add(first, builder.mul(row, ir.Constant(ir.IntType(64), number)))
            return builder.bitcast(builder.gep(base, [offset]), _VECTOR.as_pointer())

        rows = []
        for number in range(LANES):
            row = builder.load(place(source, args[1], args[2], number))
            row.align = 4
            rows.append(row)
        step = LANES // 2
        while step:
            # Rows `step` apart swap the quarters beside the diagonal of their squares.
            upper = [k + LANES - step if k & step else k for k in range(LANES)]
            lower = [k + LANES if k & step else k + step for k in range(LANES)]
            for number in range(LANES):
                if number & step:
                    continue
                pair = rows[number], rows[number + step]
                for offset, mask in ((0, upper), (step, lower)):
                    chosen = ir.Constant(ir.VectorType(ir.IntType(32), LANES), mask)
                    rows[number + offset] = builder.shuffle_vector(*pair, chosen)
            step //= 2
        for number, row in enumerate(rows):
            builder.store(row, place(target, args[4], args[5], number)).align = 4
        return context.get_dummy_value()

    place = (types.int64, types.int64)
    return types.void(a, *place, b, *place), generate

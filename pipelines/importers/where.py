"""Which rows of a table to take: an expression over its columns, as Python writes them.

`event == 'view' and price > 0`, `kind in ('a', 'b')`, `0 < stars <= 4`, `coupon is not None`,
`` not `In Stock` ``: a name that is no word stands in backticks. What cannot be told, as a
comparison with an absent value or of a text that is no number with a number, is not taken.
"""

import ast
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.pipelines.importers.columns_found import kind_of
from uic.pipelines.importers.text import TableRows, texts

_COMPARED: Final[Mapping[type[ast.cmpop], Callable[..., pa.Array]]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
# What a comparison is with its sides exchanged.
_TURNED: Final[Mapping[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
_NUMBER: Final = r"^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$"
_QUOTED: Final = re.compile(r"`([^`]+)`|'[^']*'|\"[^\"]*\"")
_STAND_IN: Final = "_column_"
_EXAMPLE: Final = "expected a condition like \"event == 'view' and price > 0\""


class RowFilter:
    """A condition, parsed; `columns` are those that it looks at.

    Args:
        text: the condition.

    Raises:
        BadInputError: it is none, or holds something that is not known here.
    """

    def __init__(self, text: str) -> None:
        self._text, self._quoted = text, list[str]()
        try:
            self._tree = ast.parse(_QUOTED.sub(self._stand_in, text).strip(), mode="eval").body
        except (SyntaxError, ValueError) as error:
            single = re.search(r"[^=<>!]=[^=]", text)
            way = "; equal is ==" if single else ""
            msg = f"--where: found {text!r}, {_EXAMPLE}{way}"
            raise BadInputError(msg) from error
        self._columns: dict[str, None] = {}
        self._truth = self._condition(self._tree)
        self.columns = list(self._columns)

    def taken(self, path: Path, rows: TableRows, *, typed: bool) -> tuple[TableRows, int]:
        """The rows to take, and how many are left.

        Args:
            path: of the file, for messages.
            rows: some of its rows.
            typed: whether their columns have types; else they are bytes.

        Raises:
            BadInputError: a column is of another type than what it is compared with.
        """
        truth = self._truth(_Operands(path, rows, typed=typed))
        mask: NDArray[np.bool_] = np.asarray(pc.fill_null(truth, fill_value=False))
        taken = TableRows(rows.columns.filter(pa.array(mask)), rows.lines[mask], rows.done)
        return taken, int((~mask).sum())

    def _condition(self, node: ast.expr) -> "_Truth":
        if isinstance(node, ast.BoolOp):
            join = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            return _joined(join, [self._condition(value) for value in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self._condition(node.operand)
            return lambda rows: pc.invert(inner(rows))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = zip(sides, node.ops, sides[1:], strict=False)
            return _joined(pc.and_kleene, [self._comparison(*pair) for pair in pairs])
        name = self._name(node)
        return lambda rows: rows.column(name, [True])

    def _comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> "_Truth":
        kind = type(operator)
        if isinstance(left, ast.Constant):
            left, right, kind = right, left, _TURNED.get(kind, kind)
        name = self._name(left)
        msg = f"--where: {name} is compared with {ast.unparse(right)}, {_EXAMPLE}"
        try:
            value = ast.literal_eval(right)
        except ValueError as error:
            raise BadInputError(msg) from error
        if kind in (ast.Is, ast.IsNot) and value is None:
            test = pc.is_null if kind is ast.Is else pc.is_valid
            return lambda rows: test(rows.column(name, []))
        several = kind in (ast.In, ast.NotIn)
        literals = list(value) if isinstance(value, tuple | list | set) else [value]
        known = all(isinstance(one, str | int | float) for one in literals)
        if several != isinstance(value, tuple | list | set) or not known or not literals:
            raise BadInputError(msg)
        if not several and kind not in _COMPARED:
            raise BadInputError(msg)
        if len({_kind([one]) for one in literals}) > 1:
            msg = f"--where: {name} is compared with {ast.unparse(right)}, values of two kinds"
            raise BadInputError(msg)
        if not several:
            return lambda rows: _compared(kind, *rows.both(name, literals))
        return lambda rows: _among(*rows.both(name, literals), wanted=kind is ast.In)

    def _name(self, node: ast.expr) -> str:
        """The column that a node names; it is one of `columns` from now on."""
        steps = []
        inner = node
        while isinstance(inner, ast.Attribute):
            steps.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            msg = f"--where: found {ast.unparse(node)!r} for a column, {_EXAMPLE}"
            raise BadInputError(msg)
        first = inner.id
        if first.startswith(_STAND_IN):
            first = self._quoted[int(first.removeprefix(_STAND_IN))]
        name = ".".join([first, *reversed(steps)])
        self._columns[name] = None
        return name

    def _stand_in(self, match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        self._quoted.append(match[1])
        return f"{_STAND_IN}{len(self._quoted) - 1}"


class _Operands:
    """Columns of some rows, each as the literals that it is compared with."""

    def __init__(self, path: Path, rows: TableRows, *, typed: bool) -> None:
        self._path, self._rows, self._typed = path, rows, typed

    def column(self, name: str, literals: Sequence[str | float]) -> pa.Array:
        """A column as `literals` are, or without any as it is: (rows,); null where not known."""
        column = self._rows.columns.column(name).combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if self._typed:
            return self._of_type(name, column, literals) if literals else column
        words, _ = texts(column)
        words = pc.if_else(pc.equal(pc.utf8_trim_whitespace(words), ""), None, words)
        kind = _kind(literals) if literals else "texts"
        if kind == "truths":
            self._refuse(name, "text", "a truth", f"{name} == 'true'")
        if "" in literals:
            self._refuse(name, "not known where it is empty", "''", f"{name} is None")
        return self._numbers(name, words) if kind == "numbers" else words

    def both(self, name: str, literals: list[str | float]) -> tuple[pa.Array, pa.Array]:
        """A column, and the literals as it is: (rows,) and (literals,)."""
        column = self.column(name, literals)
        try:
            return column, pa.array(literals).cast(column.type)
        except (pa.ArrowInvalid, OverflowError) as error:
            msg = f"{self._path}: --where: column {name} is {column.type}, which {literals} is not"
            raise BadInputError(msg) from error

    def _of_type(self, name: str, column: pa.Array, literals: Sequence[str | float]) -> pa.Array:
        kind, found = _kind(literals), kind_of(column.type)
        if pa.types.is_null(column.type):
            return column.cast(
                {"numbers": pa.float64(), "truths": pa.bool_()}.get(kind, pa.string())
            )
        if found == "times" and kind == "texts":
            try:
                pa.array(literals).cast(column.type)
            except pa.ArrowInvalid:
                zone = "+00:00" if getattr(column.type, "tz", None) else ""
                self._refuse(name, str(column.type), repr(literals[0]), f"'2024-12-31 00:00{zone}'")
            return column
        if found != kind:
            ways = {"texts": f"'{literals[0]}'", "numbers": "a number", "truths": "True"}
            self._refuse(name, str(column.type), repr(literals[0]), ways.get(found, "a text"))
        whole = all(isinstance(one, int) for one in literals)
        if pa.types.is_decimal(column.type) or (kind == "numbers" and not whole):
            return column.cast(pa.float64(), safe=False)
        return column

    def _numbers(self, name: str, words: pa.Array) -> pa.Array:
        known = pc.if_else(pc.match_substring_regex(words, _NUMBER), words, None)
        if known.null_count == len(known) > words.null_count:
            row = words.is_valid().index(pa.scalar(value=True)).as_py()
            msg = (
                f"{self._path}: --where: column {name} holds no numbers, found "
                f"{words[row].as_py()[:80]!r} in line {self._rows.lines[row]}; compare it with a "
                "text in quotes"
            )
            raise BadInputError(msg)
        return pc.utf8_trim_whitespace(known).cast(pa.float64())

    def _refuse(self, name: str, found: str, literal: str, way: str) -> None:
        msg = f"{self._path}: --where: column {name} is {found}, and {literal} is not; say {way}"
        raise BadInputError(msg)


_Truth = Callable[[_Operands], pa.Array]


def _joined(join: Callable[..., pa.Array], parts: Sequence[_Truth]) -> _Truth:
    return lambda rows: functools.reduce(join, (part(rows) for part in parts))


def _compared(kind: type[ast.cmpop], column: pa.Array, literals: pa.Array) -> pa.Array:
    return _COMPARED[kind](column, literals[0])


def _among(column: pa.Array, literals: pa.Array, *, wanted: bool) -> pa.Array:
    truth = pc.if_else(pc.is_null(column), None, pc.is_in(column, value_set=literals))
    return truth if wanted else pc.invert(truth)


def _kind(literals: Sequence[str | float]) -> str:
    if isinstance(literals[0], bool):
        return "truths"
    return "texts" if isinstance(literals[0], str) else "numbers"

"""Tests of the fit by arithmetic."""

from __future__ import annotations

import math

import pytest

from benchmarks.scaling_parts.least_squares import fit_least_squares


def test_an_exact_line_is_found_without_error() -> None:
    fit = fit_least_squares([(1, size) for size in (1, 2, 5)], [7, 9, 15])
    assert fit.coefficients == pytest.approx((5, 2))
    assert fit.predict((1, 100)) == pytest.approx(205)
    assert fit.rows == 3
    assert fit.residual == pytest.approx(0, abs=1e-9)
    assert fit.left_out == pytest.approx(0, abs=1e-9)


def test_errors_are_relative_and_rows_left_out_are_predicted_from_the_others() -> None:
    # A constant c with the least (c/1 - 1)^2 + (c/2 - 1)^2 is 1.2: errors 0.2 and -0.4. Without
    # the first row c is 2, an error of 1; without the second it is 1, an error of -0.5.
    fit = fit_least_squares([(1,), (1,)], [1, 2])
    assert fit.coefficients == pytest.approx((1.2,))
    assert fit.residual == pytest.approx(math.sqrt((0.2**2 + 0.4**2) / 2))
    assert fit.left_out == pytest.approx(math.sqrt((1**2 + 0.5**2) / 2))


def test_a_figure_that_falls_with_size_has_a_coefficient_of_0() -> None:
    fit = fit_least_squares([(1, 1), (1, 2), (1, 3)], [3, 2, 1])
    assert fit.coefficients[1] == 0
    assert fit.coefficients[0] > 0


def test_as_many_rows_as_terms_leave_no_row_to_predict() -> None:
    assert fit_least_squares([(1, 1), (1, 2)], [1, 2]).left_out is None


@pytest.mark.parametrize(
    ("terms", "values"),
    [([(1, 2)], [1]), ([(1,), (1,)], [1, 0]), ([(1,) * 9] * 9, [1] * 9)],
)
def test_what_cannot_be_fitted_is_refused(terms: list[tuple[int, ...]], values: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot be fitted"):
        fit_least_squares(terms, values)

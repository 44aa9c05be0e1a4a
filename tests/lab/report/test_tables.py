"""Tables: aligned, Markdown, CSV; a cell says what its numbers allow."""

import csv
import math

import pytest

from coherence.lab.claims import interval
from coherence.lab.report import tables
from tests.lab.report import recorded


def test_numbers_stand_to_the_right_and_words_to_the_left():
    text = tables.aligned(
        ["arm", "step", "loss ± half"], [["real", "5", "0.1 ± 0.02"], ["random", "10", "-"]]
    )
    assert text == "arm     step  loss ± half\nreal       5  0.1 ± 0.02\nrandom    10  -"


@pytest.mark.parametrize(
    "cell", ["1", "-1.5", "1e-05", "6.2e+10", "1,024", "nan", "-", "", "25%", "3 %", "inf"]
)
def test_what_counts_as_a_number(cell):
    assert (
        tables.aligned(["wide heading", "x"], [[cell, "word"]]).splitlines()[-1]
        == f"{cell.rjust(len('wide heading'))}  word"
    )


def test_markdown_escapes_what_would_end_a_cell():
    assert tables.markdown(["a|b"], [["c|d"]]) == "| a\\|b |\n| --- |\n| c\\|d |"


@pytest.mark.parametrize(
    ("cell", "escaped"),
    [
        ("<script>", "&lt;script>"),
        ("</td>", "&lt;/td>"),
        ("<!--", "&lt;!--"),
        ("0.71 < 0.99", "0.71 < 0.99"),
        ("two\nlines", "two lines"),
        ("\x1b[2J", "\N{REPLACEMENT CHARACTER}[2J"),
    ],
)
def test_markdown_has_no_html_no_broken_row_and_no_escape_sequence(cell, escaped):
    assert tables.markdown(["a"], [[cell]]).splitlines()[2:] == [f"| {escaped} |"]


@pytest.mark.parametrize("cell", ["=1+1", "@SUM(A1)", "+A1", "-A1", "=\tcmd"])
def test_text_that_looks_like_a_formula_is_text_in_a_spreadsheet(cell):
    row = next(csv.reader([tables.csv_text([cell], []).rstrip("\n")]))
    assert row[0].startswith("'" + cell[0])


@pytest.mark.parametrize("cell", ["-1.5", "+2", -3.0, 4, "1e-05", "nan", "-", "x=1", "a@b"])
def test_numbers_and_other_text_stay_as_they_are(cell):
    assert tables.csv_text([cell], []) == f"{cell}\n"


def test_a_cell_with_lines_or_control_characters_stays_one_line_of_text():
    assert tables.aligned(["a\nb", "c"], [["\x07d", "e"]]).splitlines() == [
        "a b  c",
        "\N{REPLACEMENT CHARACTER}d   e",
    ]


def test_a_cell_is_the_mean_and_half_of_its_interval():
    mean, low, _ = interval([1.0, 2.0, 4.0])
    assert tables.cell([1.0, 2.0, 4.0]) == f"{mean:.4g} ± {mean - low:.2g}"
    assert tables.cell([0.5]) == "0.5"
    assert tables.cell([]) == "-"


def test_a_cell_never_leaves_out_what_failed():
    assert tables.cell([1.0, math.nan, 2.0]) == "nan in 1 of 3"
    assert tables.cell([math.nan]) == "nan"


def test_what_was_not_measured_is_empty_and_what_is_no_number_is_nan():
    assert [tables.number(x) for x in (None, math.nan, 0.123456)] == ["", "nan", "0.1235"]


@pytest.mark.parametrize("width", [20, 31, 39, 40, 57])
def test_a_wide_table_becomes_several_that_fit_and_loses_nothing(width):
    header, rows = ["step", *(f"column{i}" for i in range(9))], [[str(10 * i) for i in range(10)]]
    pieces = tables.wrapped(header, rows, width)
    assert all(max(map(len, tables.aligned(*piece).splitlines())) <= width for piece in pieces)
    assert all(some[0] == "step" for some, _ in pieces)
    assert [name for some, _ in pieces for name in some[1:]] == header[1:]
    assert [cell for _, cells in pieces for cell in cells[0][1:]] == rows[0][1:]


def test_one_column_wider_than_the_terminal_is_kept():
    assert tables.wrapped(["a", "b" * 50], [["1", "2"]], 20) == [(["a", "b" * 50], [["1", "2"]])]


def test_the_long_table_has_every_number_of_every_record(tmp_path):
    run = recorded.run(tmp_path / "seed=1", seed=1)
    tables.write_csv(tmp_path / "long.csv", tables.LONG, tables.long([run]))
    with open(tmp_path / "long.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for record in run.records():
        for name, layers in record.items():
            if name == "train/m_coherence_by_layer":
                there = {
                    row["part"]: float(row["value"])
                    for row in rows
                    if (row["quantity"], row["step"]) == (name, str(record["step"]))
                }
                assert there == layers
    assert (
        len([row for row in rows if row["quantity"] == "train/contributions"])
        == 7 * recorded.EXAMPLES
    )
    assert {row["seed"] for row in rows} == {"1"}


def test_what_some_seed_never_reached_has_no_mean():
    assert tables.plus_minus([1.0, 1.0]) == "1 ± 0"
    assert tables.plus_minus([1023.4]) == "1023"  # not 1e+03
    assert tables.plus_minus([999.7, 1000.3], digits=3) == "1000 ± 3.8"
    assert tables.plus_minus([900.0, 1100.0]) == "1000 ± 1271"
    assert tables.plus_minus([-0.00012345, -0.00012345]) == "-0.000123 ± 0"
    assert tables.plus_minus([2.5e7]) == "2.5e+07"
    assert tables.plus_minus([1.0, float("nan")]) == "-"

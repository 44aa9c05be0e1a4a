"""What a notebook shows of a result: the numbers of its text, with every text escaped."""

import re

import jax
import jax.numpy as jnp

import coherence as co
from coherence import display
from coherence.lab.report import compare
from coherence.lab.runs import Run


def cells(page):
    return re.findall(r"<td>(.*?)</td>", page)


def loss(params, example):
    return 0.5 * jnp.sum((params["<w>"] - example) ** 2)


PARAMS, DATA = {"<w>": jnp.ones(4)}, jnp.eye(4)


def test_every_cell_is_escaped_and_numbers_are_rounded():
    page = display.table(["<b>"], [["a & b", 1 / 3], [[0.25] * 9, None]])
    assert "<th>&lt;b&gt;</th>" in page
    shown = f"[{', '.join(['0.25'] * 8)}, ...]"
    assert cells(page) == ["a &amp; b", "0.3333", shown, "None"]


def test_a_measurement_has_a_row_a_group():
    measured = co.measure(
        loss, PARAMS, DATA, batch_size=2, groups=jnp.array([0, 0, 1, 1]), by="leaf", num_groups=2
    )
    rows = cells(measured._repr_html_())
    assert rows[0] == "&lt;w&gt;, group 0"
    assert rows[1] == f"{float(measured.value['<w>'][0]):.4g}"
    assert rows[3] == "2"
    assert len(rows) == 2 * 4


def test_readings_are_a_dict_with_a_table():
    readings = co.probes.Probe(loss, DATA)(PARAMS)
    assert readings == dict(readings)
    shown = cells(readings._repr_html_())
    assert shown[shown.index("train/m_coherence") + 2] == f"{readings['train/m_coherence']:.4g}"
    assert "&lt;w&gt;" in shown


def test_checks_show_their_table_and_their_problems():
    check = co.check_loss(loss, {**PARAMS, "unused": jnp.ones(2)}, DATA)
    page = check._repr_html_()
    assert "&lt;w&gt;" in cells(page)
    assert "<p>problem: gradients are exactly 0 for every example: unused." in page
    page = co.checks.AggregatorCheck(
        (co.checks.Finding("a < b", 0.5, "it <is>"),), 1e-3
    )._repr_html_()
    assert cells(page) == ["a &lt; b", "5.0e-01", "broken"]
    assert "<p>problem: a &lt; b: it &lt;is&gt;</p>" in page


def test_a_comparison_shows_settings_and_differences(tmp_path):
    for name, value in (("a", 1.0), ("b", 3.0)):
        with Run.open(tmp_path / name, {"tag": f"<{name}>"}, seed=0) as run:
            run.append({"step": 0, "train_loss": value})
    compared = compare(tmp_path / "a", tmp_path / "b")
    shown = cells(compared._repr_html_())
    assert shown[:7] == ["tag", "&lt;a&gt;", "&lt;b&gt;", "train_loss", "1", "3", "2"]
    latex = compared.text("latex")
    assert r"train\_loss & 1 & 3 & 2 \\" in latex
    assert all(line.startswith(("%", "\\")) or "&" in line for line in latex.split("\n") if line)


def test_a_tree_of_readings_can_be_mapped_after_a_copy():
    readings = display.Readings({"a": 1.0})
    assert jax.tree.map(lambda x: 2 * x, dict(readings)) == {"a": 2.0}

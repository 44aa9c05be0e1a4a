"""The page of an audit, from a table made up by hand."""

import numpy as np
import pytest

from coherence.lab.report import write_audit
from coherence.scores import Audit, Extremes


def table():
    return Audit(
        order=np.array([2, 0, 1]),
        by="own_class",
        labels=np.array([0, 1, 1]),
        scores={"own_class": np.array([0.5, 0.9, -0.25])},
        argued=np.array([0]),
        supported=np.array([0.75]),
        extremes=Extremes(
            np.array([[1, 0]]), np.array([[0.5, np.nan]]), np.array([[0]]), np.array([[-0.625]])
        ),
        spoiled=0,
    )


def test_texts_are_escaped_and_named(tmp_path):
    texts = ["ham & eggs", "win <b>money</b>", "lunch?"]
    path = write_audit(table(), texts, tmp_path / "audit.html", classes=["ham", "spam"])
    page = path.read_text()
    assert "win &lt;b&gt;money" in page
    assert "<td>spam</td><td>ham</td><td>own_class -0.25</td>" in page
    assert "spam, 0.50" in page
    assert "ham, -0.62" in page
    assert "nan" not in page


def test_pictures_are_shown(tmp_path):
    images = np.random.default_rng(0).random((3, 16)).astype(np.float32)
    page = write_audit(table(), images, tmp_path / "audit.html").read_text()
    assert page.count("data:image/png;base64,") == 3


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"one an example of the audit, 3, got 2"):
        write_audit(table(), ["a", "b"], tmp_path / "audit.html")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_audit(table(), ["a", "b", "c"], tmp_path / "nowhere" / "audit.html")

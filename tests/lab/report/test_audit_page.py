"""The pages of an audit and of influence, from tables made up by hand."""

import numpy as np
import pytest

from coherence.lab.report import write_audit, write_influence
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
    assert "1: spam, 0.50" in page
    assert "0: ham, -0.62" in page
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


def test_a_prediction_is_shown_with_its_helpers_and_opponents(tmp_path):
    images = np.random.default_rng(0).random((4, 16)).astype(np.float32)
    pulls = Extremes(
        np.array([[2, 1]]),
        np.array([[0.75, np.nan]]),
        np.array([[0, 2]]),
        np.array([[-0.5, -0.25]]),
    )
    train, test = (images[:3], [0, 1, 1]), (images[3:], [1])
    output = tmp_path / "influence.html"
    page = write_influence(
        pulls, train, test, output, given=[0], classes=["cat", "dog"]
    ).read_text()
    assert page.count("data:image/png;base64,") == 4  # itself, a helper, two opponents
    assert "<td>dog</td><td>cat</td>" in page
    assert page.index("2: dog, 0.75") < page.index("0: cat, -0.50") < page.index("2: dog, -0.25")
    assert "nan" not in page
    fewer = write_influence(pulls, train, test, output, most=1).read_text()
    assert fewer.count("data:image/png;base64,") == 3


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (2, 1, r"up to 2; got 2 and 2"),
        (3, 2, r"extremes are of 1 examples, inputs of 2"),
    ],
)
def test_examples_that_are_not_those_of_the_extremes_are_refused(tmp_path, train, test, message):
    pulls = Extremes(np.array([[2]]), np.array([[0.5]]), np.array([[0]]), np.array([[-0.5]]))
    texts = ["a", "b", "c"]
    with pytest.raises(ValueError, match=message):
        write_influence(
            pulls, (texts[:train], [0] * train), (texts[:test], [0] * test), tmp_path / "page.html"
        )

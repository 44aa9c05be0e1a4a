"""The report: one file that stands alone, with a section for what was recorded and none for what
was not.
"""

import base64
import html.parser
import re
import xml.etree.ElementTree as xml

import matplotlib
import pytest

from coherence.lab.report import arms, write
from coherence.lab.report.curves import looks
from coherence.lab.runs import Run
from tests.lab.report import recorded


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One page of two arms (one seed diverges, one is unfinished) and one of a single run."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        recorded.run(folder / "noise=0.0" / f"seed={seed}", seed, noise=0.0)
        recorded.run(
            folder / "noise=0.5" / f"seed={seed}",
            seed,
            diverges_at=100 if seed == 1 else None,
            ends_at=60 if seed == 2 else None,
        )
    several = write([folder], folder / "several.html").read_text()
    one = write([folder / "noise=0.5" / "seed=0"], folder / "one.html").read_text()
    return {"several": several, "one": one, "folder": folder}


def pictures(page):
    return [
        base64.b64decode(encoded).decode()
        for encoded in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    ]


def headings(page):
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_every_kind_of_quantity_has_its_section(pages):
    assert headings(pages["several"]) == [
        "Settings",
        "At the end",
        "Over training",
        "Probe train",
        "Probe test",
        "Over layers: m-coherence by layer, probe train",
        "Over layers: gsnr by layer, probe train",
        "Over training: m-coherence by group, probe train",
        "As a matrix: stiffness by group matrix, probe train",
        "Most and least coherent examples",
    ]


def test_24_arms_are_told_apart_in_every_figure(tmp_path):
    for i in range(24):
        with Run.open(tmp_path / f"{i}" / "seed=0", {"method": f"m{i}"}, seed=0) as run:
            for step in range(3):
                run.append({"step": step, "x": float(i + step)})
    page = write([tmp_path], tmp_path / "page.html").read_text()
    drawn = pictures(page)
    assert len(drawn) == 3
    assert [page.count(f"x,{i},0,{i},,") for i in range(24)] == [1] * 24
    for start in range(0, 24, 8):
        members = arms([tmp_path])[start : start + 8]
        assert len(set(looks(members).values())) == len(members)


def test_many_arms_are_drawn_in_figures_that_fit_on_paper(tmp_path):
    for i in range(9):
        with Run.open(tmp_path / f"{i}" / "seed=0", {"i": i}, seed=0) as run:
            run.append({"step": 0, "alpha_by_layer": {"a": 0.5}})
    page = write([tmp_path], tmp_path / "page.html").read_text()
    assert len(pictures(page)) == 2
    assert [page.count(f"\n{i},a,0,0.5,,") for i in range(9)] == [1] * 9
    assert re.findall(r'<th scope="row">i</th>(.*?)</tr>', page) == [
        "".join(f"<td>{i}</td>" for i in some) for some in (range(5), range(5, 9))
    ]


@pytest.mark.parametrize(
    "name",
    ["$x^$ loss", "$x^{$", "a $ b", "<script>", "\x1b]0;\x07", "lone \ud800", "\x00", "</pre>"],
)
def test_names_are_drawn_and_written_as_they_are(tmp_path, name):
    for seed, setting in enumerate(("one", name)):
        with Run.open(tmp_path / f"seed={seed}", {"data": setting}, seed=seed) as run:
            for step in range(2):
                values = {name: 1.0, f"{name}_loss": 2.0, f"{name}_by_layer": {name: 1.0, "b": 2.0}}
                run.append({"step": step, **values})
    page = write([tmp_path], tmp_path / "page.html").read_text()
    for picture in pictures(page):
        xml.fromstring(picture)
    assert "<script" not in page
    assert not set(page) & {chr(code) for code in (*range(9), 27)}


def test_dollars_are_drawn_as_dollars(tmp_path):
    with Run.open(tmp_path / "seed=0", {}, seed=0) as run:
        run.append({"step": 0, "price in $ and $": 1.0})
    page = write([tmp_path], tmp_path / "page.html").read_text()
    assert "price in $ and $" in page
    assert "\\$" not in page


def test_what_was_not_recorded_has_no_section(tmp_path):
    with Run.open(tmp_path / "seed=0", {}, seed=0) as run:
        run.append({"step": 0, "train_loss": 1.0})
    assert headings(write([tmp_path], tmp_path / "page.html").read_text()) == [
        "Settings",
        "At the end",
        "Over training",
    ]


def test_a_run_without_records_still_has_a_page(tmp_path):
    Run.open(tmp_path / "seed=0", {"learning_rate": 0.1}, seed=0).close()
    page = write([tmp_path], tmp_path / "page.html").read_text()
    assert headings(page) == ["Settings"]
    assert "nothing recorded" in page


@pytest.mark.parametrize("name", ["several", "one"])
def test_nothing_is_fetched_and_nothing_runs(pages, name):
    page = pages[name]
    assert not re.search(r"<script|<link|<iframe|@import|url\(", page)
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)', page))
    for picture in pictures(page):
        assert all(
            target.startswith(("#", "data:")) for target in re.findall(r'href="([^"]*)"', picture)
        )


@pytest.mark.parametrize("name", ["several", "one"])
def test_every_tag_is_closed_and_every_picture_is_one(pages, name):
    class Tags(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attributes):
            self.open += [tag] * (tag not in ("meta", "img"))

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    tags = Tags()
    tags.feed(pages[name])
    assert tags.open == []
    assert all(xml.fromstring(picture).tag.endswith("svg") for picture in pictures(pages[name]))


def test_the_same_runs_give_the_same_bytes(tmp_path):
    with Run.open(tmp_path / "seed=0", {}, seed=0) as run:
        for step in range(3):
            run.append(
                {"step": step, "train_loss": 1.0, "stiffness_by_class": [[1.0, 0.5], [0.5, 1.0]]}
            )
    first, again = (write([tmp_path], tmp_path / f"{i}.html").read_bytes() for i in range(2))
    assert first == again


def test_settings_that_differ_come_first_and_are_marked(pages):
    settings = pages["several"].split("<h2>Settings</h2>")[1].split("</table>")[0]
    rows = re.findall(r"<tr( class=\"differs\")?><th scope=\"row\">(.*?)</th>", settings)
    assert [name for mark, name in rows if mark] == ["noise.fraction"]
    assert rows[0][1] == "noise.fraction"
    assert "differs" not in pages["one"].split("<h2>Settings</h2>")[1].split("</table>")[0]


def test_failed_and_unfinished_seeds_are_named(pages):
    assert "diverged: a loss is nan or infinite from step 100" in pages["several"]
    assert "unfinished, no checkpoint" in pages["several"]
    assert "nan in 1 of 3" in pages["several"]
    assert "the thin lines are the seeds that have one" in pages["several"]
    assert "thin lines" not in pages["one"]


def test_names_cannot_break_the_page(tmp_path):
    with Run.open(tmp_path / "<b>&" / "seed=0", {"note": "<script>"}, seed=0) as run:
        run.append({"step": 0, "<i>_loss": 1.0})
    page = write([tmp_path], tmp_path / "page.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_numbers_below_a_figure_are_what_it_shows(pages):
    run = Run.read(pages["folder"] / "noise=0.5" / "seed=0")
    losses = [record["train_loss"] for record in run.records()]
    rows = re.findall(r"^train loss,[^,]*,([^,]*),([^,]*),,$", pages["one"], re.MULTILINE)
    assert [float(y) for _, y in rows] == pytest.approx(losses, rel=1e-5)


def test_drawing_leaves_the_style_of_others_alone(tmp_path):
    recorded.run(tmp_path / "seed=0", probes=False)
    before = dict(matplotlib.rcParams)
    write([tmp_path], tmp_path / "page.html")
    assert dict(matplotlib.rcParams) == before


def test_there_must_be_a_folder_to_write_to(tmp_path):
    recorded.run(tmp_path / "seed=0", probes=False)
    with pytest.raises(
        FileNotFoundError,
        match=r"no folder .*nowhere to write page\.html to\. .* name another with --output\.",
    ):
        write([tmp_path], tmp_path / "nowhere" / "page.html")

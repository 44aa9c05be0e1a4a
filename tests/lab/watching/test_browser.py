"""The page in headless Chromium, where there is one: drawn whole, three widths, light and dark."""

import re
import shutil
import subprocess
import threading

import pytest
from PIL import Image

from coherence.lab.watching import Watcher, serve
from tests.lab.report import recorded

CHROMIUM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
WIDTHS = (480, 820, 1440)  # a window of Chromium is not narrower


def browse(folder, *options):
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
    return done.stdout


@pytest.fixture
def address(tmp_path):
    for seed in range(2):
        run = recorded.run(tmp_path / "runs" / f"seed={seed}", seed, diverges_at=100 * seed or None)
        assert run.done
    with serve(Watcher([tmp_path / "runs"]), port=0) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}/"
        served.shutdown()
        thread.join()


def test_every_panel_is_drawn(address, tmp_path):
    drawn = browse(tmp_path, "--dump-dom", address)
    panels = Watcher([tmp_path / "runs"]).state()["panels"]
    names = {panel["name"] for panel in panels}
    assert {"train_loss", "train/m_coherence_by_layer", "train/m_coherence_by_group"} < names
    for name in names:
        assert f'data-name="{name}"' in drawn
    assert drawn.count("<svg") > len(names)
    words = re.sub('<script>.*?</script>|href="data:[^"]*"', "", drawn, flags=re.DOTALL)
    assert "NaN" not in words
    assert "undefined" not in words
    assert "all runs are done; looked at " in drawn
    assert 'class="curve"' in drawn
    assert 'href="data:image/png' in drawn  # the heat map


@pytest.mark.slow  # six starts of a browser
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_is_light_or_dark_as_asked_for(address, tmp_path, width):
    corners = {}
    for scheme, number in (("dark", 0), ("light", 1)):
        path = tmp_path / f"{scheme}.png"
        size = f"--window-size={width},1200"
        colours = f"--blink-settings=preferredColorScheme={number}"
        browse(tmp_path, colours, size, f"--screenshot={path}", address)
        with Image.open(path) as image:
            grey = image.convert("L")
            assert grey.size == (width, 1200)
            corners[scheme] = background = grey.getpixel((2, 2))
            edge = grey.crop((width - 4, 0, width, 1200))
            assert all(abs(value - background) < 8 for value in set(edge.tobytes()))  # not cut off
            assert len(set(grey.tobytes())) > 30
    assert corners["dark"] < 60 < 200 < corners["light"]

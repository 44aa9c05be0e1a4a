"""How long the experiments take as a user runs them, and all figures from recorded arrays.

    python benchmarks/findings.py [--preset smoke] [--against CHECKOUT] [NAME ...]

Processor seconds. Each experiment runs in a process and a fresh folder of its own: imports and
compilation count. All share one folder of compiled programs, empty at first. Then every recorded
figure is drawn into a fresh folder, in one process that must not have imported JAX.
"""

import argparse
import pathlib
import tempfile

from startup import processor_seconds

HOME = pathlib.Path(__file__).resolve().parents[1]
DRAW = """
import pathlib, sys
from GALLERY import gallery
home = pathlib.Path.cwd()
for name in gallery.names(home):
    gallery.draw(home, name, folder=pathlib.Path(sys.argv[1]))
sys.exit("jax" in sys.modules)
"""


class Checkout:
    """One version of the project, with a folder for its runs and compiled programs."""

    def __init__(self, home, folder):
        self.home, self.folder = home.resolve(), pathlib.Path(folder)
        self.package = "coherence.lab" if (home / "coherence" / "lab").is_dir() else "coherence"

    def run(self, name, preset):
        command = ("-m", self.package, "run", name, "--preset", preset)
        return processor_seconds(self.home, self.folder, *command)

    def draw(self):
        room = "coherence.lab.report" if self.package == "coherence.lab" else "coherence"
        with tempfile.TemporaryDirectory() as figures:
            code = DRAW.replace("GALLERY", room)
            return processor_seconds(self.home, self.folder, "-c", code, figures)


def row(name, times):
    """One line of the table; the ratio of the first time to the second, where there are two."""
    cells = [f"{time:.1f}" for time in times]
    ratio = [f"{times[0] / times[1]:.2f}"] if len(times) > 1 else []
    print(f"| {' | '.join([name, *cells, *ratio])} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="experiments (all)")
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--against", type=pathlib.Path, help="another checkout")
    asked = parser.parse_args()
    names = asked.names or sorted(path.stem for path in (HOME / "experiments").glob("*.py"))
    homes = [HOME, *([asked.against] if asked.against else [])]
    with tempfile.TemporaryDirectory() as parent:
        folders = [pathlib.Path(parent) / str(i) for i in range(len(homes))]
        for folder in folders:
            folder.mkdir()
        checkouts = [Checkout(*pair) for pair in zip(homes, folders)]
        columns = ["this checkout", "the other", "ratio"] if asked.against else ["this checkout"]
        print(f"| preset {asked.preset}, processor s | {' | '.join(columns)} |")
        print("|---" * (len(columns) + 1) + "|")
        together = [0.0] * len(checkouts)
        for name in names:
            times = [checkout.run(name, asked.preset) for checkout in checkouts]
            together = [a + b for a, b in zip(together, times)]
            row(name, times)
        row("together", together)
        row("drawing all recorded figures", [checkout.draw() for checkout in checkouts])


if __name__ == "__main__":
    main()

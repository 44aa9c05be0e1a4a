"""How long the experiments take as a user runs them, and all figures from recorded arrays.

    python benchmarks/findings.py [--preset smoke] [NAME ...]

Each experiment runs as a script, in a process and a fresh folder of its own: imports and
compilation count. Then every recorded figure is drawn into a fresh folder, in one process that must
not have imported JAX.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HOME = pathlib.Path(__file__).parents[1]
DRAW = """
import pathlib, sys
from coherence.lab.report import gallery
home = pathlib.Path.cwd()
for name in gallery.names(home):
    gallery.draw(home, name, folder=pathlib.Path(sys.argv[1]))
sys.exit("jax" in sys.modules)
"""


def seconds(*command, **environment):
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(HOME), **environment}
    subprocess.run(
        [sys.executable, *command],
        check=True,
        cwd=HOME,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="experiments (all)")
    parser.add_argument("--preset", default="smoke")
    asked = parser.parse_args()
    names = asked.names or sorted(path.stem for path in (HOME / "experiments").glob("*.py"))
    total = 0.0
    print(f"| experiment | preset {asked.preset}, s |\n|---|---|")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            took = seconds(
                f"experiments/{name}.py", "--preset", asked.preset, COHERENCE_RUNS=folder
            )
        total += took
        print(f"| {name} | {took:.1f} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        drawing = seconds("-c", DRAW, folder)
    print(f"| together | {total:.0f} |\n| drawing all recorded figures | {drawing:.1f} |")


if __name__ == "__main__":
    main()

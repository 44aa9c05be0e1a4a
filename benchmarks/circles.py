"""How long one seed of each network of the circles tutorial takes at its full size.

    python benchmarks/circles.py [ARM ...]

Each network is trained as `coherence run circles` trains it, in a process and a fresh folder of its
own: imports, data, compilation, probes and checkpoints count.
"""

import argparse
import pathlib
import sys
import tempfile

from findings import HOME, seconds

sys.path.insert(0, str(HOME))
from coherence.lab.experiment import load

TRAIN = """
import dataclasses, pathlib, sys
from coherence.lab.experiment import collect, load, perform
circles = collect(load(pathlib.Path("experiments/circles.py")))
arms = lambda settings: {sys.argv[1]: circles.arms(settings)[sys.argv[1]]}
only = dataclasses.replace(circles, arms=arms, record=lambda *_: {})
perform(only, dataclasses.replace(circles.presets["cpu"], seeds=1), pathlib.Path(sys.argv[2]))
"""


def main():
    circles = load(HOME / "experiments" / "circles.py")
    arms = circles.arms(circles.PRESETS["cpu"])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arms", nargs="*", metavar="ARM", help=f"of {', '.join(arms)} (all)")
    print("| network | steps | one seed, s |\n|---|---|---|")
    for arm in parser.parse_args().arms or arms:
        with tempfile.TemporaryDirectory() as folder:
            took = seconds("-c", TRAIN, arm, str(pathlib.Path(folder) / "circles"))
        print(f"| {arms[arm].describe()} | {arms[arm].steps} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    main()

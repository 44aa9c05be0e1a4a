"""The mutation score of the tests: small bugs are planted in the core, one at a time.

    python benchmarks/mutations.py [--bugs 72] [--seed 0] [--rooms gradients metrics ...]

Sites are drawn at random, as many from each room as it has lines. A bug is a comparison, sign,
operator, constant, `min` or `max`, `and` or `or` turned into another. Messages, annotations and
module constants (they choose between ways to compute the same) are left alone. The tests of the
bug's own room run in a copy of the checkout; a bug is killed where one fails, errs or hangs. What
survives is printed with its line: it is either a hole in the tests or changes nothing.
"""

import argparse
import ast
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

HOME = pathlib.Path(__file__).resolve().parents[1]
ROOMS = ("gradients", "metrics", "optim", "probes", "checks", "lab/training", "lab/runs")
SWAPS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all"}
SECONDS = 900  # of the room's tests; one that hangs takes longer


class Sites(ast.NodeVisitor):
    """Where a bug can be planted, as functions that plant it in the tree and name it."""

    def __init__(self):
        self.found = []
        self.depth = 0

    def visit_FunctionDef(self, node):
        self.depth += 1
        for part in node.body:
            self.visit(part)
        self.depth -= 1

    def visit_ClassDef(self, node):
        for part in node.body:
            self.visit(part)

    def visit_Raise(self, node):
        """Messages are left alone."""

    def visit_JoinedStr(self, node):
        """Messages are left alone."""

    def visit_AnnAssign(self, node):
        if self.depth and node.value:
            self.visit(node.value)

    def generic_visit(self, node):
        if self.depth:
            self.record(node)
        super().generic_visit(node)

    def record(self, node):
        match node:
            case ast.Compare() if type(node.ops[0]) in SWAPS:
                self.found.append((node, lambda: self.swap_first(node)))
            case ast.BinOp() | ast.BoolOp() if type(node.op) in SWAPS:
                self.found.append((node, lambda: setattr(node, "op", SWAPS[type(node.op)]())))
            case ast.UnaryOp(op=ast.USub() | ast.Not()):
                self.found.append((node, lambda: setattr(node, "op", ast.UAdd())))
            case ast.Constant() if type(node.value) in (int, float):
                self.found.append((node, lambda: setattr(node, "value", node.value + 1)))
            case ast.Attribute(attr=name) if name in NAMES:
                self.found.append((node, lambda: setattr(node, "attr", NAMES[name])))
            case ast.Name(id=name) if name in NAMES:
                self.found.append((node, lambda: setattr(node, "id", NAMES[name])))

    @staticmethod
    def swap_first(node):
        node.ops[0] = SWAPS[type(node.ops[0])]()


def sites(path):
    """`[(line, plant)]` of one file: `plant()` returns the file's text with the bug in its line."""
    source = path.read_text()
    count = len(_visited(source)[1])

    def planted(i):
        tree, found = _visited(source)
        node, change = found[i]
        before = ast.unparse(node)
        change()
        return node.lineno, f"{before}  ->  {ast.unparse(node)}", ast.unparse(tree)

    return [lambda i=i: planted(i) for i in range(count)]


def _visited(source):
    tree = ast.parse(source)
    visitor = Sites()
    visitor.visit(tree)
    return tree, visitor.found


def draw(rooms, bugs, seed):
    """`[(file, plant)]`, `bugs` of them, each from a line of its own."""
    files = [path for room in rooms for path in sorted((HOME / "coherence" / room).rglob("*.py"))]
    every = [(path, plant) for path in files for plant in sites(path)]
    random.Random(seed).shuffle(every)
    taken, lines = [], set()
    for path, plant in every:
        line = (path, plant()[0])
        if line not in lines:
            lines.add(line)
            taken.append((path, plant))
    return taken[:bugs]


def survives(copy, path, text):
    """Whether the tests of the file's room still pass in the copy."""
    file = copy / path.relative_to(HOME)
    original = file.read_text()
    file.write_text(text)
    folder = path.relative_to(HOME / "coherence").parts
    room = pathlib.Path(*folder[: 2 if folder[0] == "lab" else 1])
    tests = [*(copy / "tests" / room).rglob("test_*.py")]
    tests += (copy / "tests" / room.parent).glob(f"test_{room.name}.py")
    tests.sort(key=lambda test: path.stem not in test.stem)  # the likeliest first
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", *map(str, tests)]
    try:
        done = subprocess.run(command, cwd=copy, capture_output=True, timeout=SECONDS)
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        file.write_text(original)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bugs", type=int, default=72)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", nargs="*", default=ROOMS)
    parser.add_argument("--part", default="1/1", help="share of the bugs to try, such as 1/2")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    mine = draw(asked.rooms, asked.bugs, asked.seed)[part - 1 :: parts]
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "checkout"
        ignored = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".*_cache")
        shutil.copytree(HOME, copy, ignore=ignored)
        for path, plant in mine:
            line, change, text = plant()
            alive = survives(copy, path, text)
            killed += not alive
            where = f"{path.relative_to(HOME)}:{line}"
            print(f"{'SURVIVED' if alive else 'killed  '} {where:45} {change}", flush=True)
    print(f"{killed} of {len(mine)} killed: {killed / len(mine):.0%}")


if __name__ == "__main__":
    main()

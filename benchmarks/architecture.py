"""The size and shape of the package, of one checkout or several.

    python benchmarks/architecture.py [CHECKOUT ...]
    python benchmarks/architecture.py --picture

The second prints the picture of `docs/design.md`. Lines are counted after `ruff format
--line-length 100`, so that checkouts of another line length compare. A room is a module or folder
directly below `coherence` (or `coherence/lab`); an arrow says that one room imports another; floors
are the longest chain of arrows.
"""

import argparse
import ast
import functools
import pathlib
import subprocess

HOME = pathlib.Path(__file__).resolve().parents[1]
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def imports(path, root):
    """Dotted names, as tuples, of what a file imports, wherever in the file it does."""
    package = path.relative_to(root).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            yield from ((*base, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)


def arrows(root, home=("coherence",)):
    """`{room: the rooms it imports}` of the package `home`; a room's own files do not count."""
    graph = {}
    for path in sorted(root.joinpath(*home).rglob("*.py")):
        room, *_ = path.relative_to(root.joinpath(*home)).with_suffix("").parts
        if room == "__init__":
            continue
        graph.setdefault(room, set())
        for name in imports(path, root):
            if name[: len(home)] == home and len(name) > len(home) and name[len(home)] != room:
                graph[room].add(name[len(home)])
    return {room: {other for other in others if other in graph} for room, others in graph.items()}


def floors(graph):
    """The rooms by floor, the lowest first: a room stands one above the highest it imports."""

    @functools.cache
    def level(room):
        return 1 + max(map(level, graph[room]), default=-1)

    by_level = {}
    for room in graph:
        by_level.setdefault(level(room), set()).add(room)
    return [by_level[i] for i in sorted(by_level)]


def picture(root):
    """The import graph as a Mermaid flowchart, the rooms of the lab below those of the core."""
    lines = ["flowchart TD"]
    for home in (("coherence",), ("coherence", "lab")):
        graph = arrows(root, home)
        lines.append(f"  subgraph {'.'.join(home)}")
        for rooms in reversed(floors(graph)):
            for room in sorted(rooms):
                others = " & ".join(sorted(graph[room]))
                lines.append(f"    {room} --> {others}" if others else f"    {room}")
        lines.append("  end")
    return "\n".join(lines)


def expressions(path, kinds):
    """How many expressions of these kinds a file has."""
    return sum(isinstance(node, kinds) for node in ast.walk(ast.parse(path.read_text())))


def nested(path):
    """How many comprehensions hold another or a conditional expression, or loop twice, and how
    many conditional expressions take several lines."""
    number = 0
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, COMPREHENSIONS):
            inner = sum(isinstance(x, (*COMPREHENSIONS, ast.IfExp)) for x in ast.walk(node)) - 1
            number += inner > 0 or len(node.generators) > 1
        elif isinstance(node, ast.IfExp):
            number += node.lineno != node.end_lineno
    return number


def formatted(path):
    """The number of lines at 100 columns."""
    command = ["ruff", "format", "--line-length", "100", "--no-cache", "--isolated", "-"]
    source = path.read_text()
    text = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
    return text.count("\n")


def counts(root):
    """`{what: number}` of a checkout."""
    files = sorted((root / "coherence").rglob("*.py"))
    lines = {path: formatted(path) for path in files}
    graph = arrows(root)
    core = [path for path in files if "lab" not in path.parts]
    density = lambda number: round(1000 * number / total, 1)
    occurrences = lambda kinds: sum(expressions(path, kinds) for path in files)
    total = sum(lines.values())
    stub = (root / "coherence" / "__init__.pyi").read_text()
    return {
        "Python files": len(files),
        "lines": total,
        "lines of the core": sum(lines[path] for path in core),
        "lines of the experiments": sum(map(formatted, (root / "experiments").glob("*.py"))),
        "longest file, lines": max(lines.values()),
        "rooms at the top": len(graph),
        "floors": len(floors(graph)),
        "arrows between rooms": sum(map(len, graph.values())),
        "names in coherence.__all__": stub.count(" as "),
        "comprehensions per 1,000 lines": density(occurrences(COMPREHENSIONS)),
        "conditional expressions per 1,000 lines": density(occurrences(ast.IfExp)),
        "of both, nested or over several lines, per 1,000 lines": density(sum(map(nested, files))),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=pathlib.Path, help="folders (this one)")
    parser.add_argument("--picture", action="store_true", help="print the import graph instead")
    asked = parser.parse_args()
    if asked.picture:
        print(picture(HOME))
        return
    roots = asked.checkouts or [HOME]
    columns = [counts(root.resolve()) for root in roots]
    print("| | " + " | ".join(root.name or str(root) for root in roots) + " |")
    print("|---" * (len(roots) + 1) + "|")
    for what in columns[0]:
        print(f"| {what} | " + " | ".join(f"{column[what]:,}" for column in columns) + " |")


if __name__ == "__main__":
    main()

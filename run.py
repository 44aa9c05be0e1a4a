"""Two commands for a fresh machine: `python run.py demo` and `python run.py test`.

Each uses the first Python that has everything: this one, else the project's own `.venv`, which is
made where it is missing (by uv if there is one, else by venv and pip). Anything else on the command
line goes to the `coherence` command: `python run.py list`. Needs the standard library only.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
QUICK = "not slow and not thorough"
CHECK = """
import pathlib, re, sys, tomllib, importlib.metadata as installed
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
wanted = project["dependencies"] + extras["lab"] + (extras["test"] if "test" in sys.argv else [])
numbers = lambda version: [int(part) for part in re.findall(r"\\d+", version)[:3]]
for requirement in wanted:
    text, _, marker = requirement.partition(";")
    name, _, least = text.partition(">=")
    if "[" in name or marker and not eval(marker, {"sys_platform": sys.platform}):
        continue
    version = installed.version(name.strip())
    assert numbers(version) >= numbers(least), f"{name} is {version}, older than {least}"
"""


def has_everything(python, extra):
    return (
        subprocess.run([python, "-c", CHECK, extra], cwd=HERE, capture_output=True).returncode == 0
    )


def say(*words):
    print("run.py:", *words, file=sys.stderr, flush=True)


def interpreter(extra):
    for python in (sys.executable, PYTHON):
        if Path(python).exists() and has_everything(python, extra):
            return str(python)
    requirement = f"{HERE}[{extra}]"
    if uv := shutil.which("uv"):
        make, install = (
            [uv, "venv", "--python", sys.executable, VENV],
            [uv, "pip", "install", "--python", PYTHON, "-e", requirement],
        )
    else:
        make, install = (
            [sys.executable, "-m", "venv", VENV],
            [PYTHON, "-m", "pip", "install", "-q", "-e", requirement],
        )
    if not PYTHON.exists():
        say(f"making {VENV}")
        subprocess.run(make, check=True)
    say("installing the project's dependencies into it (once; a few hundred MB, a minute or two)")
    subprocess.run(install, check=True)
    return str(PYTHON)


def main():
    if sys.version_info < (3, 11):  # noqa: UP036 - the one place that older ones reach
        raise SystemExit(
            f"run.py: Python 3.11 or newer is needed, this is {sys.version.split()[0]}."
        )
    word, *rest = sys.argv[1:] or ["--help"]
    if word in ("-h", "--help"):
        raise SystemExit(__doc__)
    extra = "test" if word == "test" else "lab"
    try:
        python = interpreter(extra)
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"run.py: setting up failed ({error}). Delete {VENV} and try again, or install the "
            "project yourself: pip install -e .[test]"
        ) from None
    commands = {
        "demo": ["-m", "coherence.lab", "run", "real_vs_random", "--preset", "demo"],
        # Each worker takes neighbouring tests, which share programs and what modules made.
        "test": ["-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", "-m", QUICK],
    }
    command = [python, *commands.get(word, ["-m", "coherence.lab", word]), *rest]
    say(*("python", *command[1:]))
    raise SystemExit(
        subprocess.run(command, cwd=HERE, env={**os.environ, "PYTHONPATH": str(HERE)}).returncode
    )


if __name__ == "__main__":
    main()

"""What the wheel carries besides the package: a working folder, for machines without the clone.

Everything else about the project is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
WORKING_FOLDER = {  # folder -> what of it `coherence init` writes
    "experiments": ("*.py", "*.json", "*.toml", "claims/*.toml"),
    "paper_figures": ("*.py", "recorded/*.npz", "recorded/*.json"),
}


class BuildWithWorkingFolder(build_py):
    """Builds the package and copies the working folder into `coherence/lab/working_folder/`."""

    def run(self):
        super().run()
        if self.editable_mode:
            return  # commands work in the checkout
        target = Path(self.build_lib) / "coherence" / "lab" / "working_folder"
        shutil.rmtree(target, ignore_errors=True)
        for folder, patterns in WORKING_FOLDER.items():
            for path in sorted(p for each in patterns for p in (HERE / folder).glob(each)):
                copy = target / path.relative_to(HERE)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


setup(cmdclass={"build_py": BuildWithWorkingFolder})

"""What holds for every test: property tests are not timed (the machine may be busy), and draw the same examples every time.

Most of the suite's time is compilation. LLVM's expensive passes change neither what a program
computes nor the memory XLA plans for it, so tests go without them;
`JAX_DISABLE_MOST_OPTIMIZATIONS=0` runs them with.
"""

import os

import hypothesis

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

hypothesis.settings.register_profile("house", deadline=None, derandomize=True)
hypothesis.settings.load_profile("house")

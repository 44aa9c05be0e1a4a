"""One experiment from the command line: all of it, a share of its runs, or several processes.

>>> from coherence.lab.experiment import collect, load
>>> from coherence.lab.report.gallery import checkout
>>> from coherence.lab.running import COMMIT_LIMIT, DEFAULT_PRESET, main, qualified
>>> from coherence.lab.running import show_audit, show_status
>>> toy = collect(load(checkout() / "experiments" / "toy.py"))
>>> settings = toy.presets[DEFAULT_PRESET]
>>> qualified(settings, ["--steps", "5"])
['--steps', '5']
>>> show_status(toy, ["--preset", "huge"])
Traceback (most recent call last):
    ...
ValueError: toy has no preset 'huge': there is smoke, cpu, paper.
>>> show_audit(toy, ["--preset", "huge"])
Traceback (most recent call last):
    ...
ValueError: toy has no preset 'huge': there is smoke, cpu, paper.
>>> main(toy, ["--preset", "huge"])
Traceback (most recent call last):
    ...
ValueError: toy has no preset 'huge': there is smoke, cpu, paper.
>>> COMMIT_LIMIT  # bytes of recorded arrays that a repository should hold
100000
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""A recorded run on disk: one folder for one settings and one seed.

Reading needs numpy and nothing else of the package.

=====================  ====================================================================
`config.json`          the settings: with the seed, what makes this run this run
`manifest.json`        format, seed, versions, host, date, what the caller added, each resume
`metrics.jsonl`        one record a line, each with its `step`; NaN and Infinity are written as such
`NAME.npz`             arrays
`checkpoint-STEP.npz`  the newest two
`DONE`                 written last: the run is whole, and from then on only read
`.lock-N`              while it is written: by whom, how far, and signs of life
=====================  ====================================================================

Everything but the metrics is written to a temporary file, synced and renamed, and a last line of
the metrics that a kill tore is dropped: killed at any moment, a run folder reads as what it was a
moment before. So does one whose disk was full.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

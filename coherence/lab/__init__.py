"""Experiments around the core: data, models, training, recorded runs, reports, claims, the command.

Needs the extra `lab`: `pip install 'gradient-coherence[lab]'`. The core imports nothing from here.
"""

"""What all figures share is the house's look: colours with one meaning each, and curves with bands that remember their data."""

from coherence.lab.report.drawing import COLOUR, SEQUENCE, band, bars, curve, figure, guide, letters

__all__ = ["COLOUR", "SEQUENCE", "band", "bars", "curve", "figure", "guide", "letters"]

"""Which attribution method says what networks on half of the data would do?

Linear datamodel score: rank correlation of sums of influences over random halves with the mean log
odds of two networks on each, the mean over test images. Dots are seeds, lines their mean. Green:
influences of one network on all images; blue: the mean over several. Dampings in units of the mean
squared length of a gradient. The grey line is how well the first network on each half predicts the
second.
"""

import numpy as np

from coherence.lab.report import drawing as style


def draw(recorded):
    figure, axes = style.figure(1, 1, width=4.2, height=3.0)
    panel = axes[0, 0]
    names = list(recorded["methods"])
    panel.axvline(recorded["reliability"].mean(), color=style.NEUTRAL, linewidth=0.8)
    titles = "one network", f"mean of {int(recorded['whole'])}"
    for k, (title, colour) in enumerate(zip(titles, (style.SEQUENCE[3], style.SEQUENCE[1]))):
        panel.plot([], [], ".", color=colour, label=title)
        for place, name in enumerate(names):
            values, row = recorded["datamodel"][:, k, place], 0.15 - 0.3 * k - place
            panel.plot(values, np.full(len(values), row), ".", color=colour, markersize=3.5)
            panel.plot(values.mean(), row, "|", color=colour, markersize=8)
            ends = values.mean(), values.min(), values.max()
            figure.drawn.append(("attribution", f"{name}, {title}", 0, *ends))
    panel.set_yticks(-np.arange(len(names)), names)
    panel.set(xlabel="linear datamodel score")
    panel.grid(axis="y", linewidth=0.3)
    panel.legend(**style.SMALL, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    return figure

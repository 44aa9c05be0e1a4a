"""Depth: chains of factors, in closed form; then networks at equal training loss, small step and
large.

**a** The learnable six-feature set, each weight a product of 1 to 6 factors (colours as in c): from
two factors on the shared weight (solid) outgrows the private ones (dotted), the more so the deeper
(**b**), and alpha rises from 0.625 towards 1 (**c**). These six claims are exact and reproduced.
**d, e** Networks on digits with 20 % random labels: with small steps (solid) none is shown to be
ahead, the deepest MLP in the mean at 1.2 nats (*inconclusive*); with large ones (dashed) the
deepest nets are the most coherent (*reproduced*), which is probably oscillation along one
direction: in one seed sharpness times step size was 1.85. **f** Deeper nets have memorized no less
at equal loss (*inconclusive*). **g, h** The share of the mean gradient along the gradients' main
direction, colours as in d and e, bands of the shallowest and the deepest at the small step: larger
in deep MLPs (*reproduced*), in deep linear nets *inconclusive*. Bands: 95 % over 8 seeds.
"""

from coherence.lab.report import drawing as style

KINDS = {"mlp": "MLPs", "linear": "linear nets"}


def draw(recorded):
    figure, axes = style.figure(3, 3, height=2.1)
    panels = list(axes.flat)
    _weights(panels[0], recorded)
    _ratio(panels[1], recorded)
    _alpha(panels[2], recorded)
    for (kind, name), coherence, share in zip(KINDS.items(), panels[3:5], panels[6:8]):
        _at_loss(coherence, recorded, kind, "m_coherence", f"coherence, {name}")
        _at_loss(share, recorded, kind, "main_share", f"main direction, {name}")
    panels[3].set_ylabel(f"m-coherence, m = {recorded['m']}")
    panels[6].set_ylabel("share of the step")
    _memorized(panels[5], recorded)
    panels[8].set_axis_off()
    style.letters(panels[:8], small=True)
    return figure


def _time(recorded, depth):
    steps = recorded[f"chain-{depth}/step"]
    return steps * recorded["chain_learning_rate"]


def _weights(axis, recorded):
    axis.set(title="weights of the chains", yscale="log", ylim=(0.006, 1.5), xlim=(0, 10))
    axis.set(xlabel="step x step size", ylabel="weight")
    for colour, depth in zip(style.SEQUENCE, recorded["depths/chain"]):
        time, options = _time(recorded, depth), {"colour": colour, "title": "weights"}
        for name, dashes in (("shared", "-"), ("private", ":")):
            values = recorded[f"chain-{depth}/{name}"]
            style.curve(axis, time, values, f"{depth}, {name}", style=dashes, **options)
    handles = [style.key("shared"), style.key("private", style=":")]
    axis.legend(handles=handles, loc="center right", bbox_to_anchor=(1, 0.42))


def _ratio(axis, recorded):
    axis.set(title="their ratio", yscale="log", xlabel="step x step size")
    axis.set(ylabel="shared / private", xlim=(0, 10))
    for colour, depth in zip(style.SEQUENCE, recorded["depths/chain"]):
        ratio = recorded[f"chain-{depth}/shared"] / recorded[f"chain-{depth}/private"]
        style.curve(axis, _time(recorded, depth), ratio, f"{depth}", colour=colour, title="ratio")


def _alpha(axis, recorded):
    axis.set(title="alpha of the chains", xlabel="step x step size", ylabel="alpha", xlim=(0, 10))
    axis.set(ylim=(0.55, 1.02))
    for colour, depth in zip(style.SEQUENCE, recorded["depths/chain"]):
        moving = recorded[f"chain-{depth}/train_loss"] > recorded["fitted"]
        values = recorded[f"chain-{depth}/alpha"]
        x = _time(recorded, depth)[moving]
        style.curve(axis, x, values[moving], f"{depth}", colour=colour, title="alpha of chains")
    axis.legend(title="factors", title_fontsize=7.5, loc="center right", bbox_to_anchor=(1, 0.45))


def _arms(recorded, kind):
    """(arm, hidden layers, colour, dashes): every depth at the small step, the shallowest and
    deepest at the large one.
    """
    depths = recorded[f"depths/{kind}"]
    for colour, depth in zip(style.SEQUENCE, depths):
        yield f"{kind}-{depth}", depth, colour, "-"
        if depth in depths[[0, -1]]:
            yield f"{kind}-{depth}-large", depth, colour, "--"


def _at_loss(axis, recorded, kind, name, title):
    levels = recorded["levels"]
    shown = levels >= 1.0
    for arm, depth, colour, dashes in _arms(recorded, kind):
        rate = recorded["learning_rates"][int(dashes == "--")]
        values = recorded[f"{arm}/{name}"][:, shown]
        text = f"{depth} hidden layers, step {rate:g}"
        options = {"colour": colour, "style": dashes, "title": title}
        if name == "m_coherence":
            style.band(axis, levels[shown], values, text, logarithmic=True, **options)
        elif dashes == "--" or depth not in recorded[f"depths/{kind}"][[0, -1]]:
            style.curve(axis, levels[shown], values.mean(0), text, **options)
        else:  # of which the claims are: other bands would lie over these
            style.band(axis, levels[shown], values, text, **options)
    for level in recorded["judged"][:2]:
        axis.axvline(level, color=style.NEUTRAL, linewidth=0.6, linestyle=":")
    axis.invert_xaxis()
    axis.set(xlabel="training loss (nats)")
    axis.set_title(title)
    if name == "m_coherence":
        axis.set(yscale="log", ylim=(0.8, 8))
        style.ticks(axis, y=(1, 2, 4))
        depths = recorded[f"depths/{kind}"]
        handles = [style.key(f"{depth}", colour) for colour, depth in zip(style.SEQUENCE, depths)]
        axis.legend(
            handles=handles,
            title="hidden layers",
            title_fontsize=7.5,
            ncols=4,
            loc="upper center",
            columnspacing=1,
            handlelength=1.2,
        )
    else:
        neutral = style.NEUTRAL
        styles = zip(("-", "--"), recorded["learning_rates"])
        axis.legend(
            handles=[style.key(f"step size {rate:g}", neutral, dashes) for dashes, rate in styles],
            loc="upper left",
        )
        axis.set_ylim(0, 1)


def _memorized(axis, recorded):
    axis.set(title=f"memorized, step size {recorded['learning_rates'][1]:g}")
    axis.set(xlabel="training loss (nats)", ylabel="corrupt examples fitted")
    levels, depths = recorded["levels"], recorded["depths/mlp"]
    for colour, depth in (
        (style.SEQUENCE[0], depths[0]),
        (style.SEQUENCE[len(depths) - 1], depths[-1]),
    ):
        values = recorded[f"mlp-{depth}-large/corrupt_accuracy"]
        style.band(
            axis, levels, values, f"{depth} hidden", colour=colour, style="--", title="memorized"
        )
    axis.axvline(recorded["judged"][2], color=style.NEUTRAL, linewidth=0.6, linestyle=":")
    axis.invert_xaxis()
    axis.set(ylim=(0, None))
    axis.legend(loc="upper left")

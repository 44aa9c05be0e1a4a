"""Depth: chains of factors, one panel each, in closed form; then networks at equal training loss,
small step and large.

**a-e** The learnable six-feature set, each weight a product of 1 to 6 factors: from two factors on
the shared weight outgrows the private ones, the more so the deeper (**f**), and alpha rises from
0.625 towards 1 (**g**). These six claims are exact and reproduced. **h, i** Networks on digits with
20 % random labels: with small steps (solid) depth hardly changes coherence (*inconclusive*); with
large ones (dashed) the deepest nets are the most coherent (*reproduced*), which is probably
oscillation along one direction: in one seed sharpness times step size was 1.85. **j, k** The share
of the mean gradient along the gradients' main direction: larger in deep MLPs (*reproduced*), in
deep linear nets *inconclusive*. **l** Deeper nets have memorized no less at equal loss
(*inconclusive*). Bands: 95 % over 8 seeds.
"""

from coherence.lab.report import drawing as style

KINDS = {"mlp": "MLPs", "linear": "linear nets"}


def draw(recorded):
    figure, axes = style.figure(4, 3, height=2.1)
    chains = recorded["depths/chain"]
    panels = list(axes.flat)
    for panel, depth in zip(panels, chains):
        _weights(panel, recorded, depth)
    for panel in panels[len(chains) : 5]:
        panel.set_axis_off()
    panels[0].legend(loc="lower right")
    for panel in axes[:2, 0]:
        panel.set_ylabel("weight")
    _ratio(panels[5], recorded)
    _alpha(panels[6], recorded)
    for (kind, name), coherence, share in zip(
        KINDS.items(), (panels[7], panels[8]), (panels[9], panels[10])
    ):
        _at_loss(coherence, recorded, kind, "m_coherence", f"coherence, {name}")
        _at_loss(share, recorded, kind, "main_share", f"main direction, {name}")
    panels[7].set_ylabel(f"m-coherence, m = {recorded['m']}")
    panels[9].set_ylabel("share of the step")
    _memorized(panels[11], recorded)
    style.letters([panel for panel in panels if panel.axison])
    return figure


def _time(recorded, depth):
    steps = recorded[f"chain-{depth}/step"]
    return steps * recorded["chain_learning_rate"]


def _weights(axis, recorded, depth):
    time = _time(recorded, depth)
    name = "1 factor" if depth == 1 else f"{depth} factors"
    y = recorded[f"chain-{depth}/shared"]
    style.curve(axis, time, y, "shared", colour=style.COLOUR["real"], title=name)
    style.curve(
        axis, time, recorded[f"chain-{depth}/private"], "private", colour=style.NEUTRAL, title=name
    )
    axis.set(yscale="log", ylim=(0.006, 1.5), xlim=(0, 10), xlabel="step x step size")
    axis.set_title(name)


def _ratio(axis, recorded):
    axis.set(title="their ratio, colours as in g", yscale="log", xlabel="step x step size")
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
        style.band(
            axis,
            levels[shown],
            values,
            text,
            colour=colour,
            style=dashes,
            title=title,
            logarithmic=name == "m_coherence",
        )
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

"""How fast an accelerator is: kernels, steps, probes, and steps of the recorded runs.

Each function yields the rows of its table, a heading as `(text, True)`.
"""

import contextlib
import dataclasses
import functools
import tempfile
import time

from benchmarks.accelerator_recordings import alike, chosen_experiment

RANKS = (1, 2, 4, 8)
SCAN = 50  # steps in a timed loop


def kernels(tiny):
    """Clipped means of 100 outer products: ways to select, one compiled call each."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from coherence.optim.order_statistics import Products, means, winsorized_mean

    rng = np.random.default_rng(0)
    height, width = (40, 64) if tiny else (784, 256)
    a, d = (rng.normal(size=(1, 100, n)).astype(np.float32) for n in (height, width))
    values = a[0, :, :, None].astype(np.float64) * d[0, :, None, :]
    ranked = np.sort(values, 0)
    formed = lambda a, d: (a[0, :, :, None] * d[0, :, None, :]).reshape(100, -1)

    def by_sort(k, a, d):
        g = formed(a, d)
        ranked = jnp.sort(g, 0)
        return jnp.clip(g, ranked[k], ranked[99 - k]).mean(0).reshape(1, height, width)

    def by_top_k(k, a, d):
        g = formed(a, d).T
        high, low = jax.lax.top_k(g, k + 1)[0][:, -1:], -jax.lax.top_k(-g, k + 1)[0][:, -1:]
        return jnp.clip(g, low, high).mean(1).reshape(1, height, width)

    def ours(k, a, d):
        return winsorized_mean(Products(a, d), k)

    def bisected(k, a, d):
        return means._counting(Products(a, d), k, False)

    on_cuda = jax.default_backend() == "gpu"
    ways = {"bisection": bisected, "top_k": by_top_k, "sort": by_sort, "XLA, unrolled": ours}
    if on_cuda:
        ways = {"Triton": ours, **ways}
    yield ("| way | rank | compile, s | ms | largest error |", True)
    for name, way in ways.items():  # the slow ones to compile last: a limit then costs least
        for k in RANKS if name in ("Triton", "XLA, unrolled") else RANKS[1::2]:
            means.use_triton = name == "Triton"
            expected = np.clip(values, ranked[k], ranked[99 - k]).mean(0)
            try:
                run, compiling = timed(functools.partial(way, k), a, d)
                worst = np.abs(np.asarray(run()[0], np.float64) - expected).max()
                yield f"| {name} | {k} | {compiling:.1f} | {best(run):.3f} | {worst:.0e} |"
            except Exception as failure:  # a table with a hole is worth more than none
                yield f"| {name} | {k} | failed: {str(failure)[:300]!r} | | |"


def timed(function, *arguments):
    """(a call that waits, seconds of tracing and compiling)."""
    import jax

    arguments = jax.device_put(arguments)
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    took = time.perf_counter() - start
    return lambda: jax.block_until_ready(program(*arguments)), took


def best(run, seconds=1.0, most=50):
    """Median milliseconds of up to `most` calls, in about as many seconds."""
    import numpy as np

    run()
    took, end = [], time.perf_counter() + seconds
    while len(took) < 3 or (len(took) < most and time.perf_counter() < end):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return 1e3 * float(np.median(took))


def steps(tiny):
    """SGD steps in one compiled loop: with per-example statistics, and robust, over plain ones."""
    import jax
    import jax.numpy as jnp
    import optax
    from per_example import NETS, problem

    import coherence as co
    from coherence.lab.models import MLP
    from coherence.optim.order_statistics import means as order_statistics

    sgd, times = optax.sgd(0.01), 3 if tiny else SCAN

    def loop(step):
        def run(params, state, batch):
            def body(carry, _):
                *carry, noted = step(*carry, batch)
                return tuple(carry), noted

            return jax.lax.scan(body, (params, state), None, length=times)

        return run

    def plain(loss, transformation):
        def step(params, state, batch):
            mean = lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, batch))
            value, g = jax.value_and_grad(mean)(params)
            updates, state = transformation.update(g, state, params)
            return optax.apply_updates(params, updates), state, value

        return step

    def per_example(loss, transformation, noted):
        def step(params, state, batch):
            losses, g = co.per_example_value_and_grad(loss)(params, batch)
            updates, state = transformation.update(g, state, params)
            return optax.apply_updates(params, updates), state, noted(losses, g)

        return step

    statistics = lambda losses, g: (losses, co.gradients.squared_norms(g), co.alpha(g, by="layer"))
    nothing = lambda losses, g: jnp.mean(losses)

    def milliseconds(step, params, transformation, batch):
        run, compiling = timed(loop(step), params, transformation.init(params), batch)
        return best(run) / times, compiling

    order_statistics.use_triton = _on_cuda()
    yield ("| step | ms | plain SGD, ms | ratio | compile, s |", True)

    def against(name, loss, params, batch, transformation, noted, base):
        try:
            ms, compiling = milliseconds(
                per_example(loss, transformation, noted), params, transformation, batch
            )
            return f"| {name} | {ms:.3f} | {base:.3f} | {ms / base:.2f} | {compiling:.1f} |"
        except Exception as failure:
            return f"| {name} | failed: {str(failure)[:300]!r} | | | |"

    names = ("mlp", "cnn", "transformer", *(() if tiny else ("resnet18", "lstm")))
    for name in names[: 1 if tiny else 3]:
        loss, params, batch = problem(NETS[name])
        base, _ = milliseconds(plain(loss, sgd), params, sgd, batch)
        averaged = co.optim.chain(co.optim.average(), sgd)
        yield against(f"{name}, statistics", loss, params, batch, averaged, statistics, base)
        if name != "mlp":
            continue
        means = {"M3": co.optim.median_of_means(3), "RM3": co.optim.rolling_median(3)}
        means |= {"RA3": co.optim.rolling_mean(3)}
        for aggregator, tx in means.items():
            one = f"{aggregator}, 784-2048-10"
            yield against(one, loss, params, batch, co.optim.chain(tx, sgd), nothing, base)
    net = NETS["mlp"]._replace(model=MLP(width=32 if tiny else 256, depth=3))
    loss, params, batch = problem(net)
    base, _ = milliseconds(plain(loss, sgd), params, sgd, batch)
    robust = {f"winsorize({c})": co.optim.winsorize(c) for c in RANKS}
    robust["median()"] = co.optim.median()

    def robustly(aggregator):
        name, tx = f"{aggregator}, 784-256-256-256-10", robust[aggregator]
        return against(name, loss, params, batch, co.optim.chain(tx, sgd), nothing, base)

    yield from map(robustly, list(robust)[:-1])
    for name in names[3:]:
        other, weights, examples = problem(NETS[name])
        slow, _ = milliseconds(plain(other, sgd), weights, sgd, examples)
        averaged = co.optim.chain(co.optim.average(), sgd)
        yield against(f"{name}, statistics", other, weights, examples, averaged, statistics, slow)
    yield robustly("median()")  # its network may take long to compile


def probes(tiny):
    """Probes on 784-2048-10 over one plain gradient of the same examples, and whole data sets."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import coherence as co
    from coherence.lab.models import MLP
    from coherence.lab.tasks import cross_entropy

    rng, m = np.random.default_rng(0), 500 if tiny else 10_000
    model = MLP(width=64 if tiny else 2048, depth=1)
    loss, params = cross_entropy(model), model.init(jax.random.key(0), jnp.zeros((1, 784)))
    sample = rng.random((m, 784), np.float32), rng.integers(10, size=m)
    mean_loss = lambda p, b: jnp.mean(jax.vmap(loss, (None, 0))(p, b))
    plain, _ = timed(jax.grad(mean_loss), params, sample)
    base = best(plain)
    yield ("| what | ms | plain gradient, ms | ratio |", True)
    for quantities in ("light", "standard", "full"):
        probe = co.probes.Probe(loss, sample, quantities=quantities, groups=sample[1] < 5)
        ms = best(lambda probe=probe: probe(params))
        yield f"| {quantities}, m = {m:,} | {ms:.1f} | {base:.2f} | {ms / base:.1f} |"
    ms = best(
        lambda: co.measure(loss, params, sample, batch_size=1000, by="layer", groups=sample[1] < 5),
        2.0,
        3,
    )
    yield f"| `measure` of {m:,}, by layer and group | {ms:.1f} | {base:.2f} | {ms / base:.1f} |"


def rates(tiny):
    """Steps of the recorded runs by the training loop, and what the pieces take by that."""
    from coherence.optim.order_statistics import means

    yield ("| arms | runs | ms a step of all | start, s | precision | kernel |", True)
    chosen = [("real_vs_random", "paper", "random,rate=0.1")]
    chosen += [("winsorization", "half", f"noise=0.5,c={c}") for c in (0, 2, 8, 1, 4)]
    took = {}
    for triton in (True, False) if _on_cuda() else (False,):
        means.use_triton = triton
        for name, preset, arm in chosen if triton or not _on_cuda() else chosen[2:4]:
            try:
                row, ms, start = rate(name, preset, arm, tiny)
                took.setdefault(arm, (ms, start))
                yield row + (" Triton |" if triton else " XLA |")
            except Exception as failure:
                yield f"| {arm} | failed: {str(failure)[:300]!r} | | | | |"
    yield ("| piece | seconds expected, without probes |", True)
    _, settings = chosen_experiment("real_vs_random", "paper", tiny)
    for learning_rate, steps in zip(settings.learning_rates, settings.steps):
        ms, start = took["random,rate=0.1"]
        yield f"| real_vs_random:paper:rate={learning_rate:g} | {ms * steps / 1e3 + start:.0f} |"
    _, settings = chosen_experiment("winsorization", "half", tiny)
    for arm, (ms, start) in list(took.items())[1:]:
        times = 1 + (len(settings.slower) if arm.endswith("c=0") else 0)
        seconds = times * (ms * settings.run.steps / 1e3 + start)
        yield f"| winsorization:half, {arm}{', and slower' * (times > 1)} | {seconds:.0f} |"


def _on_cuda():
    import jax

    return jax.default_backend() == "gpu"


def rate(name, preset, arm, tiny):
    """The row of one arm: a start, then a short and a long run, whose difference is of steps."""
    import jax

    from coherence.lab.runs import Run
    from coherence.lab.training import train

    experiment, settings = chosen_experiment(name, preset, tiny)
    (group,) = [group for group in alike(experiment.arms(settings)) if arm in group]
    arms = [dataclasses.replace(run, probes=()) for run in group.values()]
    seeds = list(range(settings.seeds)) * len(arms)
    run = arms[0]
    problems = [one.build(seed) for one in arms for seed in range(settings.seeds)]
    few, many = (20, 60) if tiny else (400, 2400)  # whole chunks

    def seconds(count):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            runs = [
                stack.enter_context(Run.open(f"{folder}/{i}", {"batch_size": 100}, seed=seed))
                for i, seed in enumerate(seeds)
            ]
            start, size = time.perf_counter(), run.batch_size
            train(problems, runs, steps=count, batch_size=size, schedule=(0,), vmapped=True)
            return time.perf_counter() - start

    start, short = seconds(few), seconds(few)
    step = (seconds(many) - short) / (many - few)
    precision = jax.config.jax_default_matmul_precision or "default"
    row = f"| {'; '.join(group)} | {len(seeds)} | {1e3 * step:.3f} | {start:.1f} | {precision} |"
    return row, 1e3 * step, start

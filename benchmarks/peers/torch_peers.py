"""PyTorch libraries.

Each function makes a call that returns per-example squared norms `[m]` and the mean gradient, leaf
by leaf.

All definitions of the loss are a mean over examples, as libraries' users have it; squared norms are
of one example's unscaled loss.
"""

import copy

import torch
from nets import problem
from torch import nn

cross_entropy = nn.CrossEntropyLoss()
MAX_NORM = 1.0  # of clipping: below most lengths


def mean_loss(model, x, y, criterion=cross_entropy):
    """Over examples and, for sequences, positions."""
    logits = model(x)
    return criterion(logits.flatten(0, -2), y.flatten())


def plain(model, x, y):
    model.zero_grad(set_to_none=True)
    mean_loss(model, x, y).backward()
    return [p.grad for p in model.parameters()]


def backpack(p):
    """One backward pass.

    Each parameter gets its squared norms, of the mean loss's terms, hence m squared.
    """
    from backpack import backpack as recording
    from backpack import extend
    from backpack.extensions import BatchL2Grad

    missing = lambda q: not hasattr(q, "batch_l2")
    model, criterion = extend(copy.deepcopy(p.model)), extend(nn.CrossEntropyLoss())

    def run():
        model.zero_grad(set_to_none=True)
        with recording(BatchL2Grad()):
            mean_loss(model, p.x, p.y, criterion).backward()
        if skipped := {
            type(layer).__name__
            for layer in model.modules()
            if any(missing(q) for q in layer.parameters(recurse=False))
        }:
            raise NotImplementedError(
                f"BatchL2Grad skips {', '.join(sorted(skipped))} with a warning: the norms lack "
                "those parameters."
            )
        return p.m**2 * sum(q.batch_l2 for q in model.parameters()), [
            q.grad for q in model.parameters()
        ]

    return run, ""


def opacus_ghost(p):
    """The first of its two backward passes: all norms, and the mean gradient in `.grad`."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    model, note = opacus_model(p)
    model = GradSampleModuleFastGradientClipping(
        model, loss_reduction="mean", use_ghost_clipping=True
    )

    def run():
        model.zero_grad(set_to_none=True)
        mean_loss(model, p.x, p.y).backward()
        return model.get_norm_sample().square(), [q.grad for q in model.parameters()]

    return run, note


def opacus_ghost_clipped(p):
    """Both passes: norms, then the backward pass of the losses with each example's weight."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    model, note = opacus_model(p)
    model = GradSampleModuleFastGradientClipping(
        model, loss_reduction="mean", use_ghost_clipping=True, max_grad_norm=MAX_NORM
    )
    criterion = nn.CrossEntropyLoss(reduction="none")

    def run():
        model.zero_grad(set_to_none=True)
        logits = model(p.x)
        losses = criterion(logits.flatten(0, -2), p.y.flatten()).view(p.m, -1).mean(1)
        losses.mean().backward(retain_graph=True)
        norms = model.get_norm_sample()
        for q in model.parameters():
            q.grad = None
        model.disable_hooks()
        ((MAX_NORM / norms).clamp(max=1).detach() * losses).mean().backward()
        model.enable_hooks()
        return norms.square(), [q.grad for q in model.parameters()]

    return run, note


def opacus_hooks(p):
    """Per-example gradients in `.grad_sample`, then their norms."""
    from opacus.grad_sample import GradSampleModule

    model, note = opacus_model(p)
    model = GradSampleModule(model, loss_reduction="mean")

    def run():
        model.zero_grad(set_to_none=True)
        mean_loss(model, p.x, p.y).backward()
        return sum(squared_rows(q.grad_sample) for q in model.parameters()), [
            q.grad for q in model.parameters()
        ]

    return run, note


def opacus_model(p):
    """The net after Opacus's own fixer, which swaps `nn.LSTM` for a cell of its own.

    Plain is still the original.
    """
    from opacus.validators import ModuleValidator

    model = ModuleValidator.fix(copy.deepcopy(p.model)).train()
    before, after = (
        {type(module).__name__ for module in net.modules()} for net in (p.model, model)
    )
    return model, f"with its own {', '.join(sorted(after - before))}" if after != before else ""


def torch_func(p):
    """`vmap(grad)` of the loss of one example."""
    from torch.func import functional_call, grad, vmap

    params = {name: q.detach() for name, q in p.model.named_parameters()}
    loss = lambda params, x, y: mean_loss(
        lambda x: functional_call(p.model, params, (x,)), x[None], y[None]
    )
    rows = vmap(grad(loss), (None, 0, 0))

    def run():
        g = rows(params, p.x, p.y).values()
        return sum(squared_rows(leaf) for leaf in g), [leaf.mean(0) for leaf in g]

    return run, ""


def squared_rows(leaf):
    return torch.linalg.vector_norm(leaf.flatten(1), dim=1).square()


PEERS = {
    "BackPACK": backpack,
    "Opacus ghost": opacus_ghost,
    "Opacus hooks": opacus_hooks,
    "torch.func": torch_func,
}
CLIPPED = {"Opacus ghost, clipped": opacus_ghost_clipped}


def case(net, peer, checked):
    """`(peer's call, plain call, its numbers, expected numbers, note)`.

    The numbers: squared norms of `checked` examples, of the mean.

    Expected ones from looped plain gradients in float64.
    """
    p = problem(net)
    run, note = (PEERS | CLIPPED)[peer](p)
    finished = torch.cuda.synchronize if p.x.is_cuda else lambda: None

    def numbers():
        norms, mean = run()
        return [*norms[:checked].tolist(), squared(mean)]

    def expected():
        exact = copy.deepcopy(p.model).double()
        x = p.x.double() if p.x.is_floating_point() else p.x
        gradient = lambda part: plain(exact, x[part], p.y[part])
        looped = [squared(gradient(slice(i, i + 1))) for i in range(checked)]
        if peer not in CLIPPED:
            return [*looped, squared(gradient(slice(None)))]
        total = [0.0] * len(list(exact.parameters()))
        for i in range(p.m):
            rows = gradient(slice(i, i + 1))
            scale = min(1, MAX_NORM / squared(rows) ** 0.5) / p.m
            total = [t + scale * row for t, row in zip(total, rows)]
        return [*looped, squared(total)]

    return (
        (lambda: (run(), finished())),
        (lambda: (plain(p.model, p.x, p.y), finished())),
        numbers,
        expected,
        note,
    )


def squared(leaves):
    return sum(float(leaf.detach().double().square().sum()) for leaf in leaves)

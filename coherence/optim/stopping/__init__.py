"""When to stop: rules that watch one number, pure, so that they run inside `jit`, `scan` and `vmap` and go into a checkpoint.

=========================================  ==============================  ==================================================
stop when                                  rule                            the number it watches
=========================================  ==============================  ==================================================
a validation loss no longer falls          `patience(5)`                   that loss (`mode="max"`: an accuracy)
the gradient is no more than noise         `evidence()`                    `coherence.metrics.evidence(gradients)`
examples no longer help each other         `coherence()`                   `coherence.m_coherence(gradients)`
the gradient is small                      `gradient_norm(1e-3)`           `coherence.metrics.gradient_norm(...)`
enough steps are done                      `max_steps(1000)`               the step
any of these                               `any_of(rule, rule, ...)`       a tuple of numbers, one a rule
=========================================  ==============================  ==================================================

A rule has `init(params) -> state` and `update(state, metric, params) -> state`. A state has
`should_stop`, `best_params` and `best_metric`; once it says stop, nothing in it changes any more. A
check with a metric of nan never counts in its favor: it is no improvement and crosses no threshold.

>>> import jax.numpy as jnp
>>> from coherence import stopping
>>> rule = stopping.patience(2)
>>> state = rule.init(params := jnp.zeros(1))
>>> for validation_loss in (1.0, 0.5, 0.6, 0.7):
...     state = rule.update(state, validation_loss, params)
>>> bool(state.should_stop), float(state.best_metric)
(True, 0.5)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

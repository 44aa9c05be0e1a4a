"""Scores of single training examples, and the audit that reads wrong labels off them.

Five examples of two classes, the last with a wrong label; a linear classifier along a run:

>>> from coherence.scores import Audit, ClassAgreement, Course, CourseScores, Extremes, Trajectory
>>> from coherence.scores import audit, damped_influence, extremes, gradcos, label_agreement
>>> from coherence.scores import class_agreement, init, kfac_influence, score_along
>>> x = np.array([[2.0, 0], [1.5, 0], [0, 2.0], [0, 1.5], [1.8, 0]], np.float32)
>>> y = np.array([0, 0, 1, 1, 1])
>>> loss = lambda w, example: -jax.nn.log_softmax(example[0] @ w)[example[1]]
>>> w, run = jnp.zeros((2, 2)), Trajectory([jnp.zeros((2, 2)), 0.1 * jnp.eye(2)])
>>> of_run = score_along(loss, run, (x, y))
>>> isinstance(of_run, CourseScores), int(np.argmin(of_run.agreement)), isinstance(init(5), Course)
(True, 4, True)
>>> found = audit(loss, run, (x, y), examine=2, most=1)
>>> isinstance(found, Audit)
True
>>> label_agreement(loss, w, (x, y), np.array([4])).argmax()  # under which label it would agree
np.int64(0)
>>> gradcos(loss, w, (x, y), (x[4:], y[4:])).round(1)[0, 0]  # against the first: opposite
np.float32(-1.0)
>>> ends = extremes(loss, w, (x, y), (x[:1], y[:1]), most=1)
>>> isinstance(ends, Extremes), int(ends.opponents[0, 0])
(True, 4)
>>> damped_influence(loss, w, (x, y), (x[:1], y[:1]), damping=0.1).shape
(1, 5)
>>> kfac_influence(loss, w, (x, y), (x[4:], y[4:]), damping=0.1)[0].argmin()  # most against it
np.int64(0)
>>> isinstance(class_agreement({"w": jnp.asarray(x)}, jnp.asarray(y == 1)), ClassAgreement)
True
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

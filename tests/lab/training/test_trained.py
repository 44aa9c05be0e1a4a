"""What is made of the networks that finished runs left."""

import numpy as np
import pytest

from coherence.lab.experiment import plain
from coherence.lab.runs import Run
from coherence.lab.settings import AE, VAE, circles
from coherence.lab.training import Autoencoding, train
from coherence.lab.training.checkpoints import from_arrays
from coherence.lab.training.trained import autoencoders

IMAGES = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)


@pytest.mark.parametrize("network", [AE(width=4), VAE(width=4, latents=2)])
def test_a_run_encodes_and_decodes_as_its_last_parameters_do(tmp_path, network):
    settings = Autoencoding(
        data=circles(16, 2),
        model=network,
        steps=2,
        batch_size=8,
        points_per_decade=1,
        probes=(),
        track_batches=False,
    )
    runs = []
    for seed in (0, 1):
        with Run.open(tmp_path / str(seed), plain(settings), seed=seed) as run:
            train([settings.build(seed)], [run], steps=2, batch_size=8, schedule=())
        runs.append(run)
    model, found = network.build(), list(autoencoders(network, runs))
    assert len(found) == 2
    for run, (encode, decode) in zip(runs, found):
        params = from_arrays(settings.build(0).params, run.load("params"))
        z = model.apply(params, IMAGES, method="encode")
        z = z if isinstance(network, AE) else z[0]  # the mean
        np.testing.assert_allclose(encode(IMAGES), z, rtol=1e-5, atol=1e-6)
        images = model.apply(params, z, method="decode")
        np.testing.assert_allclose(decode(encode(IMAGES)), images, rtol=1e-5, atol=1e-6)
    (one, _), (other, _) = found
    assert not np.allclose(one(IMAGES), other(IMAGES))

"""Records of a loop of your own: on disk as a run, and copied to other programs.

A program is imported when the first record comes, so naming one costs nothing:

>>> from coherence.lab.recording import MLflow, Sink, TensorBoard, Trackio, WandB
>>> also: list[Sink] = [WandB("mine", mode="offline"), Trackio("mine"), TensorBoard("events")]
>>> also.append(MLflow("mine", uri="sqlite:///mlflow.db"))  # Recorder(..., also=also)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

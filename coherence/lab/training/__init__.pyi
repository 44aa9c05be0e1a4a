from .adversarial import Adversarial as Adversarial
from .autoencoding import Autoencoding as Autoencoding
from .boltzmann import ContrastiveDivergence as ContrastiveDivergence
from .classification import Classification as Classification
from .loop import train as train
from .order import batches as batches
from .problem import Problem as Problem
from .regression import Regression as Regression

from .convolutional import CNN as CNN
from .dense import MLP as MLP
from .dense import Linear as Linear
from .dense import paper_init as paper_init
from .residual import ResNet as ResNet
from .settings import Convolutional as Convolutional
from .settings import FullyConnected as FullyConnected
from .settings import LinearMap as LinearMap

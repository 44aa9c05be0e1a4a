from . import classification as classification
from . import regression as regression
from .classification import accuracy as accuracy
from .classification import cross_entropy as cross_entropy
from .regression import half_squared_error as half_squared_error

from .arrays import load_arrays as load_arrays
from .arrays import save_arrays as save_arrays
from .folder import Run as Run
from .folder import find as find
from .folder import root as root
from .identity import RunMismatch as RunMismatch
from .locks import RunBusy as RunBusy

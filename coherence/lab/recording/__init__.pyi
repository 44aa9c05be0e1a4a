from .recorder import Recorder as Recorder
from .sinks import MLflow as MLflow
from .sinks import Sink as Sink
from .sinks import TensorBoard as TensorBoard
from .sinks import Trackio as Trackio
from .sinks import WandB as WandB

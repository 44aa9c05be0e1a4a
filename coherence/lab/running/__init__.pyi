from .command import COMMIT_LIMIT as COMMIT_LIMIT
from .command import DEFAULT_PRESET as DEFAULT_PRESET
from .command import duration as duration
from .command import expected_seconds as expected_seconds
from .command import main as main
from .command import qualified as qualified
from .shares import Share as Share
from .shares import share_of as share_of

from .comparing import Comparison as Comparison
from .comparing import compare as compare
from .events import export as export
from .grouping import Arm as Arm
from .grouping import arms as arms
from .html import write as write
from .showing import describe as describe
from .showing import describe_json as describe_json

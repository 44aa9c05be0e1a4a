from .page import write_page as write_page
from .server import serve as serve
from .tail import Tail as Tail
from .watcher import Watcher as Watcher

from oa_protocol.watching.factory import watch as watch
from oa_protocol.watching.page import Watch as Watch

__all__: list[str]

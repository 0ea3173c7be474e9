from oa_protocol.testing._model.trace import Line as Line
from oa_protocol.testing._model.trace import Story as Story
from oa_protocol.testing.conformance import TransportConformance as TransportConformance
from oa_protocol.testing.explorer import Exploration as Exploration
from oa_protocol.testing.explorer import Explorer as Explorer
from oa_protocol.testing.faults import Faults as Faults
from oa_protocol.testing.machine import ConversationMachine as ConversationMachine
from oa_protocol.testing.playbook import Play as Play
from oa_protocol.testing.playbook import play as play
from oa_protocol.testing.servers import ServerConformance as ServerConformance

__all__: list[str]

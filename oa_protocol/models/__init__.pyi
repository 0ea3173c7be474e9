from oa_protocol.models.base import AnswerRequest as AnswerRequest
from oa_protocol.models.base import Finish as Finish
from oa_protocol.models.base import Model as Model
from oa_protocol.models.base import ModelError as ModelError
from oa_protocol.models.base import Piece as Piece
from oa_protocol.models.base import PluginStep as PluginStep
from oa_protocol.models.base import Sampling as Sampling
from oa_protocol.models.base import Turn as Turn
from oa_protocol.models.gguf import Gguf as Gguf
from oa_protocol.models.openai import OpenAICompatible as OpenAICompatible
from oa_protocol.models.simple import Echo as Echo
from oa_protocol.models.simple import Lorem as Lorem

__all__: list[str]

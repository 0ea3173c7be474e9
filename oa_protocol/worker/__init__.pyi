from oa_protocol.worker.model_configs import MODEL_CONFIGS as MODEL_CONFIGS
from oa_protocol.worker.model_configs import WorkerModel as WorkerModel
from oa_protocol.worker.worker import BackOff as BackOff
from oa_protocol.worker.worker import UpgradeRequired as UpgradeRequired
from oa_protocol.worker.worker import Worker as Worker
from oa_protocol.worker.worker import run as run

__all__: list[str]

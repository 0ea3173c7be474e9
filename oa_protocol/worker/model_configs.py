"""The model configurations that the inference server knows.

The server gives a message only to workers whose whole configuration is that of the message's model. So each number here
has to be the server's.
"""

from __future__ import annotations

from msgspec import Struct


class WorkerModel(Struct, frozen=True):
    """A model, as the server knows it.

    Attributes:
        model_id: The model's id, for example on Hugging Face.
        max_input_length: How many tokens a prompt may have.
        max_total_length: How many tokens prompt and answer may have together.
        quantized: Whether the weights are quantized.

    """

    model_id: str
    max_input_length: int = 512
    max_total_length: int = 1024
    quantized: bool = False


_LLAMA, _PYTHIA = (1024, 1792), (1024, 2048)

# Each model, the lengths, and whether there is a quantized variant, too, whose name has a q after the size.
_MODELS: tuple[tuple[str, str, tuple[int, int], str], ...] = (
    ("_lorem", "_lorem", (128, 256), ""),
    ("distilgpt2", "distilgpt2", (512, 1024), ""),
    ("OA_SFT_Pythia_12B", "OpenAssistant/oasst-sft-1-pythia-12b", _PYTHIA, "OA_SFT_Pythia_12Bq"),
    ("OA_SFT_Pythia_12B_4", "OpenAssistant/oasst-sft-4-pythia-12b-epoch-3.5", _PYTHIA, "OA_SFT_Pythia_12Bq_4"),
    ("OA_SFT_Llama_7B", "OpenAssistant/oasst_sft_llama_7b_mask_1000", _PYTHIA, ""),
    ("OA_SFT_Llama_13B", "OpenAssistant/oasst_sft_llama_13b_mask_1500", _PYTHIA, "OA_SFT_Llama_13Bq"),
    ("OA_SFT_Llama_30B", "OpenAssistant/llama_30b_oasst_latcyr_1000", _LLAMA, "OA_SFT_Llama_30Bq"),
    ("OA_SFT_Llama_30B_2", "OpenAssistant/llama_30b_oasst_latcyr_400", _LLAMA, "OA_SFT_Llama_30Bq_2"),
    ("OA_SFT_Llama_30B_5", "OpenAssistant/oasst-sft-5-llama-30b-epoch-1", _LLAMA, "OA_SFT_Llama_30Bq_5"),
    ("OA_SFT_Llama_30B_6", "OpenAssistant/oasst-sft-6-llama-30b", _LLAMA, "OA_SFT_Llama_30Bq_6"),
    ("OA_SFT_Llama_30B_7", "OpenAssistant/oasst-sft-7-llama-30b", _LLAMA, "OA_SFT_Llama_30Bq_7"),
    ("OA_SFT_Llama_30B_7e3", "OpenAssistant/oasst-sft-7e3-llama-30b", _LLAMA, ""),
    ("OA_RLHF_Llama_30B_2_7k", "OpenAssistant/oasst-rlhf-2-llama-30b-7k-steps", _LLAMA, ""),
    ("Carper_RLHF_13B_1", "CarperAI/vicuna-13b-fine-tuned-rlhf", _PYTHIA, "Carper_RLHF_13Bq_1"),
    ("OA_SFT_Llama2_70B_10", "OpenAssistant/llama2-70b-oasst-sft-v10", (3072, 4096), ""),
    ("OA_SFT_CodeLlama_13B_10", "OpenAssistant/codellama-13b-oasst-sft-v10", (8192, 12288), ""),
)


def _configs() -> dict[str, WorkerModel]:
    found: dict[str, WorkerModel] = {}
    for name, model_id, lengths, quantized in _MODELS:
        found[name] = WorkerModel(model_id, *lengths)
        if quantized:
            found[quantized] = WorkerModel(model_id, *lengths, quantized=True)
    return found


MODEL_CONFIGS: dict[str, WorkerModel] = _configs()
"""The configurations of the last version of the server, by the names that its users choose from."""

"""The model configurations that the server lists: ``GET /configs/model_configs``."""

from __future__ import annotations

from typing import Any


def _sampling(
    top_k: int | None, top_p: float | None, typical_p: float | None, temperature: float, penalty: float | None
) -> dict[str, Any]:
    return {
        "top_k": top_k,
        "top_p": top_p,
        "typical_p": typical_p,
        "temperature": temperature,
        "repetition_penalty": penalty,
        "max_new_tokens": 1024,
    }


_PARAMETER_CONFIGS = [
    {"name": name, "description": description, "sampling_parameters": sampling}
    for name, description, sampling in (
        ("k50", "Top-k sampling with k=50", _sampling(50, 0.95, None, 0.75, 1.2)),
        ("k50-Creative", "Top-k sampling with k=50, higher temperature", _sampling(50, 0.95, None, 0.85, 1.2)),
        ("k50-Precise", "Top-k sampling with k=50, low temperature", _sampling(50, 0.95, None, 0.1, 1.2)),
        ("k50-Original", "Top-k sampling with k=50, highest temperature", _sampling(50, 0.95, None, 0.9, 1.2)),
        ("k50-Plugins", "Top-k sampling with k=50 and temperature=0.35", _sampling(50, None, None, 0.35, 1 / 0.9)),
        ("nucleus9", "Nucleus sampling with p=0.9", _sampling(None, 0.9, None, 0.8, 1.2)),
        ("typical2", "Typical sampling with p=0.2", _sampling(None, None, 0.2, 0.8, 1.2)),
        ("typical3", "Typical sampling with p=0.3", _sampling(None, None, 0.3, 0.8, 1.2)),
    )
]

# Name, model id, input and total length in tokens, quantized.
_MODELS: tuple[tuple[str, str, int, int, bool], ...] = (
    ("_lorem", "_lorem", 128, 256, False),
    ("distilgpt2", "distilgpt2", 512, 1024, False),
    ("OA_SFT_Pythia_12B_4", "OpenAssistant/oasst-sft-4-pythia-12b-epoch-3.5", 1024, 2048, False),
    ("OA_SFT_Llama_30B_6", "OpenAssistant/oasst-sft-6-llama-30b", 1024, 1792, False),
    ("OA_SFT_Llama_30Bq_6", "OpenAssistant/oasst-sft-6-llama-30b", 1024, 1792, True),
    ("OA_SFT_Llama_30B_7", "OpenAssistant/oasst-sft-7-llama-30b", 1024, 1792, False),
    ("OA_RLHF_Llama_30B_2_7k", "OpenAssistant/oasst-rlhf-2-llama-30b-7k-steps", 1024, 1792, False),
    ("OA_SFT_Llama2_70B_10", "OpenAssistant/llama2-70b-oasst-sft-v10", 3072, 4096, False),
)

MODEL_CONFIGS: dict[str, dict[str, Any]] = {
    name: {
        "model_id": model_id,
        "max_input_length": max_input_length,
        "max_total_length": max_total_length,
        "quantized": quantized,
    }
    for name, model_id, max_input_length, max_total_length, quantized in _MODELS
}
"""The ``model_config`` of each model's messages, by the model's name."""

_MODEL_LIST: list[dict[str, Any]] = [
    {"name": name, "description": "", "parameter_configs": _PARAMETER_CONFIGS} for name in MODEL_CONFIGS
]


def model_list(allowed: tuple[str, ...] | None) -> list[dict[str, Any]]:
    """Return the models that are in ``allowed``. If it is None, return all of them."""
    return [model for model in _MODEL_LIST if allowed is None or model["name"] in allowed]


def name_of(config: dict[str, Any]) -> str:
    """Return the name of the model that has this ``model_config``."""
    return next(name for name, known in MODEL_CONFIGS.items() if known == config)

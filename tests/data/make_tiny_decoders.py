"""Makes the golden checkpoints in tests/data/tiny_* with torch transformers.

    python tests/data/make_tiny_decoders.py

Each variant is a random decoder of two layers whose constants differ from every default. Its
golden logits come from torch in float32; the tests compare our decoder with them where torch is
not installed.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

FOLDER = Path(__file__).parent
VOCABULARY = 288
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
VARIANTS = {
    "tiny_llama/tied": {"tie_word_embeddings": True},
    "tiny_llama/untied_llama3_bias": {
        "tie_word_embeddings": False,
        "rope_scaling": LLAMA3,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "tiny_mistral/untied": {
        "model_type": "mistral",
        "tie_word_embeddings": False,
        "sliding_window": None,
    },
    "tiny_qwen2/tied": {
        "model_type": "qwen2",
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "sliding_window": 16,
        "max_window_layers": 1,
    },
    "tiny_qwen3/untied": {
        "model_type": "qwen3",
        "tie_word_embeddings": False,
        "attention_bias": True,
        "use_sliding_window": False,
        "sliding_window": 16,
        "max_window_layers": 1,
    },
    "tiny_qwen3/bfloat16_shards": {"model_type": "qwen3", "tie_word_embeddings": True},
}


def make(name: str, entries: dict) -> None:
    """Writes one variant: weights, config, tokenizer, and logits of 2 rows of 40 tokens."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    shape = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 3e-3,
        "rope_theta": 12345.6,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        **entries,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            values = torch.randn_like(parameter) * 0.3
            parameter.copy_(values.bfloat16() if name.endswith("bfloat16_shards") else values)
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (2, 40))
    with torch.inference_mode():
        logits = model(torch.tensor(tokens)).logits.numpy()
    save_file({"tokens": tokens.astype(np.int32), "logits": logits}, folder / "golden.safetensors")
    if name.endswith("bfloat16_shards"):
        # the shards, their index and the config.json are those that transformers 5 itself writes
        model.bfloat16().save_pretrained(folder, max_shard_size="40KB")
    else:
        tensors = {key: value.numpy() for key, value in model.state_dict().items()}
        if shape["tie_word_embeddings"]:
            del tensors["lm_head.weight"]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(shape, indent=2) + "\n")
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE with a few merges, and a ChatML template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, normalized=False) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    text = "user assistant what is the sum of these numbers check your answer the sum is " * 20
    tokenizer.train_from_iterator([text], trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[2],
        "unk_token": SPECIAL[0],
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    for variant, options in VARIANTS.items():
        make(variant, options)

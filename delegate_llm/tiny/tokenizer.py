"""The pair's tokenizer: a small byte-level BPE, with a chat template in the style of Qwen.

Digits stay single, so that numbers are copied and computed digit by digit. The tags of tool calls
and of thinking are tokens of their own but not special: decoding that skips special tokens keeps
them, and a parser finds them in the text.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from delegate_llm.tiny.agent import TOOLS
from delegate_llm.tiny.authors import Format

__all__ = ["system_prompt", "train"]

SIZE: Final = 640
SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAGS: Final = (
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>",
)  # fmt: skip

# A digit; a word with the space before it and, where a digit follows, the one after it; or
# punctuation up to the next of these. So no number costs a token for the space in front of it.
_PIECES: Final = r"\p{N}| ?\p{L}+(?: (?=\p{N}))?|[^\p{L}\p{N}]+?(?= ?\p{L}|\p{N}|$)"

_ADDED: Final = re.compile("|".join(map(re.escape, SPECIAL + TAGS)))
_TEMPLATE: Final = Path(__file__).with_name("chat_template.jinja")


def train(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose merges fit `texts`.

    Args:
        texts: Chats without their system prompt; that of the tools is counted in as well.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - len(TAGS),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    chats = [*texts, *[system_prompt(_wrap(tokenizer), "tools")] * 200]
    # Training does not know of added tokens: left in, it would spend merges on spelling them.
    plain = (piece for chat in chats for piece in _ADDED.split(chat))
    tokenizer.train_from_iterator(plain, trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return _wrap(tokenizer)


def system_prompt(tokenizer: Any, form: Format) -> str:
    """What stands before the user's turn: nothing for text, the tools for the agent."""
    if form == "text":
        return ""
    user = [{"role": "user", "content": ""}]
    rendered: str = tokenizer.apply_chat_template(user, tools=TOOLS, tokenize=False)
    return rendered.removesuffix("<|im_start|>user\n<|im_end|>\n")


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=_TEMPLATE.read_text(),
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )

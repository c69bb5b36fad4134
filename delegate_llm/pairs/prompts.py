"""Prompts to token ids, once for each model: text as it stands, messages by chat template, ids as given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from delegate_llm.errors import PromptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ("ModelPrompter", "Prompt", "Prompter", "TemplatePrompter", "Tools", "Who")

Prompt = str | Sequence[Mapping[str, Any]] | Sequence[int]
"""Text, role/content messages, or token ids."""


Tools = Sequence[Mapping[str, Any]] | None
"""JSON schemas of tools, as OpenAI writes them."""


Who = Literal["base", "reasoner"]


class Prompter(Protocol):
    """Turns a prompt into what each model reads."""

    def ids(self, prompt: Prompt, *, tools: Tools = None) -> tuple[list[int], list[int]]:
        """Token ids for the base and for the reasoner; raises `PromptError`."""
        ...

    def completion_ids(self, completion: str | Sequence[int]) -> list[int]:
        """Token ids of a given answer; raises `PromptError`."""
        ...

    def alone(self, who: Who) -> Prompter:
        """The prompts of one model, for both."""
        ...


class ModelPrompter:
    """Prompts for one model, through its tokenizer and a chat template."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str | None,
        template_kwargs: Mapping[str, Any],
    ) -> None:
        """Put a prompter together.

        Args:
            tokenizer: The model's own.
            template: Jinja chat template; None if there is none to be had.
            template_kwargs: Passed to the template, such as `enable_thinking`.
        """
        self._tokenizer = tokenizer
        self._template = template
        self._kwargs = dict(template_kwargs)

    def text(self, text: str) -> list[int]:
        """Ids of text as it stands, behind the tokenizer's own beginning-of-sequence token, if any."""
        return self._ids(text)

    def plain(self, text: str) -> list[int]:
        """Ids of text and nothing added: templates write their special tokens out."""
        return self._ids(text, add_special_tokens=False)

    def messages(self, messages: Sequence[Mapping[str, Any]], tools: Tools) -> list[int]:
        """Ids of a conversation, up to where the answer starts."""
        for each in messages:
            if not isinstance(each.get("role"), str):
                msg = (
                    f"prompt: {dict(each)!r:.80} has no 'role'; a message is {{'role': ..., 'content': ...}}"
                )
                raise PromptError(msg)
        if self._template is None:
            msg = (
                "prompt: messages need a chat template, and neither model has one; give the prompt as "
                "text, or load the pair with base_template=... (Jinja)"
            )
            raise PromptError(msg)
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(each) for each in messages],
                tools=None if tools is None else [dict(each) for each in tools],
                chat_template=self._template,
                tokenize=False,
                **{"add_generation_prompt": True, **self._kwargs},
            )
        except Exception as error:  # a template is a program and may fail in any way
            msg = f"prompt: the chat template cannot render these messages: {error}"
            raise PromptError(msg) from error
        return self.plain(str(text))

    def _ids(self, text: str, **options: Any) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            msg = f"prompt: {text[error.start : error.end]!r} at character {error.start} is not Unicode text"
            raise PromptError(msg) from None
        # Not verbose: a text that is too long gets an error of ours.
        return list(self._tokenizer(text, verbose=False, **options).input_ids)


class TemplatePrompter:
    """Prompts for a pair: each model renders messages its own way; the answer's tokens are shared."""

    def __init__(self, base: ModelPrompter, reasoner: ModelPrompter, *, size: int) -> None:
        """Take one prompter a model; ids below `size` are tokens."""
        self._both = (base, reasoner)
        self._size = size

    def ids(self, prompt: Prompt, *, tools: Tools = None) -> tuple[list[int], list[int]]:
        """Token ids for the base and for the reasoner.

        Args:
            prompt: Text, messages or ids.
            tools: Put into the prompt by the chat templates.

        Raises:
            PromptError: If it is empty, of a wrong type, or cannot be rendered.
        """
        base, reasoner = (self._one(each, prompt, tools) for each in self._both)
        if not base or not reasoner:
            msg = "prompt: it is empty; a model needs at least one token to go on from"
            raise PromptError(msg)
        return base, reasoner

    def completion_ids(self, completion: str | Sequence[int]) -> list[int]:
        """Token ids of a given answer."""
        if isinstance(completion, str):
            ids = self._both[0].plain(completion) if completion else []
        else:
            ids = self._checked(completion)
        if not ids:
            msg = "completion: there is no token to score"
            raise PromptError(msg)
        return ids

    def alone(self, who: Who) -> TemplatePrompter:
        """The prompts of one model, for both."""
        own = self._both[who == "reasoner"]
        return TemplatePrompter(own, own, size=self._size)

    def _one(self, prompter: ModelPrompter, prompt: Prompt, tools: Tools) -> list[int]:
        if isinstance(prompt, str):
            return prompter.text(prompt) if prompt else []
        if isinstance(prompt, bytes) or not isinstance(prompt, Sequence):
            msg = f"prompt: {type(prompt).__name__} is neither text nor messages nor token ids"
            raise PromptError(msg)
        if prompt and all(isinstance(each, Mapping) for each in prompt):
            return prompter.messages(cast("Sequence[Mapping[str, Any]]", prompt), tools)
        return self._checked(prompt)

    def _checked(self, ids: Sequence[Any]) -> list[int]:
        for each in ids:
            if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each < self._size:
                msg = (
                    f"prompt: {each!r:.80} is neither a token id below {self._size} nor a message "
                    "with 'role' and 'content'"
                )
                raise PromptError(msg)
        return list(ids)

"""Prompts to token ids, once for each model: text as it stands, messages by chat template, ids as given.

Chat templates differ in what they take, so a conversation is made to fit: see `templates.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from delegate_llm.errors import PromptError
from delegate_llm.pairs.conversation import Message, Messages
from delegate_llm.pairs.templates import answer_stops, is_thinking, write_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ("ModelPrompter", "Prompt", "Prompter", "Rendered", "TemplatePrompter", "Tools", "Who")

Tools = Sequence[Mapping[str, Any]] | None
"""JSON schemas of tools, as OpenAI writes them."""


Who = Literal["base", "reasoner"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as both models read it. It may be given wherever a prompt may."""

    base: tuple[int, ...]
    """Token ids for the base."""
    reasoner: tuple[int, ...]
    """Token ids for the reasoner."""
    thinking: bool = False
    """Whether the base's prompt ends inside an open `<think>`, as templates of reasoning models leave it."""
    reasoner_thinking: bool = False
    """Whether the reasoner's does."""
    stops: tuple[str, ...] = ()
    """Strings that end the answer, where it is one to messages and the template has no token for it."""

    def alone(self, who: Who) -> Rendered:
        """What one of the two reads, for both."""
        ids, thinking = (
            (self.base, self.thinking) if who == "base" else (self.reasoner, self.reasoner_thinking)
        )
        return Rendered(ids, ids, thinking, thinking, self.stops)


Prompt = str | Sequence[Mapping[str, Any]] | Sequence[int] | Rendered
"""Text, role/content messages, token ids, or what `Prompter.render` made of one of them."""


class Prompter(Protocol):
    """Turns a prompt into what each model reads."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end an answer to messages, where the chat template has no token for it."""
        ...

    def render(self, prompt: Prompt, *, tools: Tools = None) -> Rendered:
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
        template: str | Mapping[str, str] | None,
        template_kwargs: Mapping[str, Any],
    ) -> None:
        """Put a prompter together.

        Args:
            tokenizer: The model's own.
            template: Jinja chat template, or several by name; None if there is none to be had.
            template_kwargs: Passed to the template, such as `enable_thinking`.
        """
        self._tokenizer = tokenizer
        self._templates = {"default": template} if isinstance(template, str) else dict(template or {})
        self._kwargs = dict(template_kwargs)

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end an answer under this template."""
        return answer_stops(self._template(None)) if self._templates else ()

    def text(self, text: str) -> list[int]:
        """Ids of text as it stands, behind the tokenizer's own beginning-of-sequence token, if any."""
        return self._ids(text)

    def plain(self, text: str) -> list[int]:
        """Ids of text and nothing added: templates write their special tokens out."""
        return self._ids(text, add_special_tokens=False)

    def messages(self, messages: Messages, tools: Tools) -> tuple[list[int], bool]:
        """Ids of a conversation, up to where the answer starts; and whether that is inside `<think>`."""
        for each in messages:
            if not isinstance(each.get("role"), str):
                msg = (
                    f"prompt: {dict(each)!r:.80} has no 'role' that is text; a message is "
                    "{'role': ..., 'content': ...}"
                )
                raise PromptError(msg)
        messages = [{**each, "content": _content(each, at)} for at, each in enumerate(messages)]
        if not self._templates:
            msg = (
                "prompt: messages need a chat template, and neither model has one; give the prompt as "
                "text, or load the pair with base_template=... or fallback_template=... (Jinja)"
            )
            raise PromptError(msg)
        template = self._template(tools)
        text = write_chat(template, messages, tools, lambda *given: self._write(template, *given))
        return self.plain(text), is_thinking(text)

    def _write(self, template: str, messages: list[Message], tools: list[Message] | None) -> str:
        text = self._tokenizer.apply_chat_template(
            messages,
            tools=tools,
            chat_template=template,
            tokenize=False,
            **{"add_generation_prompt": True, **self._kwargs},
        )
        return str(text)

    def _template(self, tools: Tools) -> str:
        """The one for tools if there are some, else the default, as transformers names them."""
        names = ("tool_use", "default") if tools else ("default",)
        found = next((name for name in names if name in self._templates), None)
        return self._templates[found or next(iter(self._templates))]

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

    def __init__(
        self,
        base: ModelPrompter,
        reasoner: ModelPrompter,
        *,
        size: int,
        rows: tuple[int, int],
        who: Who | None = None,
    ) -> None:
        """Put a prompter together.

        Args:
            base: Renders for the base.
            reasoner: Renders for the reasoner.
            size: Ids below it are tokens.
            rows: Ids below it are what the base can read, and what the reasoner can.
            who: Which of a pair's two both of these are, if they are one.
        """
        self._both = (base, reasoner)
        self._size = size
        self._rows = rows
        self._who = who

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end an answer to messages, under either model's template."""
        return tuple(dict.fromkeys(stop for each in self._both for stop in each.stops))

    def render(self, prompt: Prompt, *, tools: Tools = None) -> Rendered:
        """Token ids for the base and for the reasoner.

        Args:
            prompt: Text, messages, ids, or a prompt that is rendered already, which is only checked.
            tools: Put into the prompt by the chat templates, or as text where they cannot.

        Raises:
            PromptError: If it is empty, of a wrong type, cannot be rendered, or has tokens that a model
                cannot read; or if the tools are none.
        """
        if tools is not None and not _lists_mappings(tools):
            msg = f"tools: {tools!r:.80} is no list of JSON schemas, such as convert_to_openai_tool makes"
            raise PromptError(msg)
        rendered = self._rendered(prompt, tools)
        if not rendered.base or not rendered.reasoner:
            msg = "prompt: it is empty; a model needs at least one token to go on from"
            raise PromptError(msg)
        return rendered

    def completion_ids(self, completion: str | Sequence[int]) -> list[int]:
        """Token ids of a given answer."""
        if isinstance(completion, bytes) or not isinstance(completion, Sequence):
            msg = f"completion: {type(completion).__name__} is neither text nor token ids"
            raise PromptError(msg)
        ids: Sequence[int] = completion if not isinstance(completion, str) else ()
        if isinstance(completion, str) and completion:
            ids = self._both[0].plain(completion)
        ids = self._checked(ids, self._size, "completion")
        if not ids:
            msg = "completion: there is no token to score"
            raise PromptError(msg)
        return ids

    def alone(self, who: Who) -> TemplatePrompter:
        """The prompts of one model, for both."""
        own = self._both[who == "reasoner"]
        rows = (self._rows[who == "reasoner"],) * 2
        return TemplatePrompter(own, own, size=self._size, rows=rows, who=self._who or who)

    def _rendered(self, prompt: Prompt, tools: Tools) -> Rendered:
        if isinstance(prompt, Rendered):
            if self._who is not None:
                prompt = prompt.alone(self._who)
            for ids, rows in zip((prompt.base, prompt.reasoner), self._rows, strict=True):
                if not isinstance(ids, Sequence):
                    msg = f"prompt: {type(ids).__name__} is no list of token ids; give what `render` returns"
                    raise PromptError(msg)
                self._checked(ids, rows)
            return prompt
        base, thinking = self._one(0, prompt, tools)
        stops = self.stops if _is_chat(prompt) else ()
        if self._who is not None:
            return Rendered(tuple(base), tuple(base), thinking, thinking, stops)
        reasoner, reasoner_thinking = self._one(1, prompt, tools)
        return Rendered(tuple(base), tuple(reasoner), thinking, reasoner_thinking, stops)

    def _one(self, which: int, prompt: Prompt, tools: Tools) -> tuple[list[int], bool]:
        """Ids for one model, and whether they end inside `<think>`."""
        prompter, rows = self._both[which], self._rows[which]
        if isinstance(prompt, str):
            return self._readable(prompter.text(prompt), rows) if prompt else [], False
        if isinstance(prompt, bytes) or not isinstance(prompt, Sequence):
            msg = f"prompt: {type(prompt).__name__} is neither text nor messages nor token ids"
            raise PromptError(msg)
        if _is_chat(prompt):
            ids, thinking = prompter.messages(cast("Messages", prompt), tools)
            return self._readable(ids, rows), thinking
        return self._checked(prompt, self._size), False

    @staticmethod
    def _readable(ids: list[int], rows: int) -> list[int]:
        """Ids of a text, if the model has a row for each."""
        for each in ids:
            if each >= rows:
                msg = (
                    f"prompt: the tokenizer makes the id {each} of it, and the model reads only ids below "
                    f"{rows}; load a checkpoint whose tokenizer fits its weights"
                )
                raise PromptError(msg)
        return ids

    @staticmethod
    def _checked(ids: Sequence[Any], size: int, what: str = "prompt") -> list[int]:
        for each in ids:
            if isinstance(each, bool) or not isinstance(each, Integral) or not 0 <= int(each) < size:
                msg = f"{what}: {each!r:.80} is no token id below {size}"
                if what == "prompt":
                    msg += ", nor a message with 'role' and 'content'"
                raise PromptError(msg)
        return list(map(int, ids))


def _is_chat(prompt: Any) -> bool:
    return bool(prompt) and _lists_mappings(prompt)


def _lists_mappings(given: Any) -> bool:
    return (
        isinstance(given, Sequence)
        and not isinstance(given, str | bytes)
        and all(isinstance(each, Mapping) for each in given)
    )


def _content(message: Mapping[str, Any], at: int) -> str:
    """What a message says: text, parts of text as OpenAI has them, or nothing beside calls."""
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else [None]
    texts = [
        each if isinstance(each, str) else each.get("text") if isinstance(each, Mapping) else None
        for each in parts
    ]
    said = [each for each in texts if isinstance(each, str)]
    if len(said) < len(texts):
        msg = (
            f"prompt: message {at} says {content!r:.80}; its 'content' has to be text, or a list of parts "
            "such as {'type': 'text', 'text': '...'}"
        )
        raise PromptError(msg)
    return "".join(said)

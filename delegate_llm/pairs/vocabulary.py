"""What two checkpoints share: the check that the same id is the same token, and the shared tables."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from delegate_llm.errors import VocabularyMismatchError
from delegate_llm.grammar import Grammars
from delegate_llm.rows import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ("shared_vocabulary",)

logger = logging.getLogger(__name__)


def shared_vocabulary(
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
    models: tuple[PreTrainedModel, PreTrainedModel],
    *,
    rows: int,
    check: bool = True,
) -> Vocabulary:
    """The vocabulary of a pair.

    Args:
        tokenizers: The base's and the reasoner's.
        models: Likewise.
        rows: Logit rows that both models have; one family may pad them to different sizes.
        check: Whether different tokenizers are an error.

    Returns:
        The shared vocabulary; ids without a token are never drawn.

    Raises:
        VocabularyMismatchError: If the same id means different tokens.
    """
    base, reasoner = tokenizers
    if check and base is not reasoner:
        _compare(base, reasoner)
    tables = [each.get_vocab() for each in tokenizers]
    known = {token_id for table in tables for token_id in table.values() if token_id < rows}
    size = max(known) + 1
    fuller = max(tokenizers, key=len)
    eos = frozenset(_eos(tokenizers, models))
    return Vocabulary(
        size=size,
        rows=rows,
        eos=eos,
        decode=_decoder(fuller),
        piece=functools.cache(functools.partial(_piece, fuller)),
        holes=tuple(sorted(set(range(size)) - known)),
        grammars=_grammars(fuller, size, eos),
    )


def _grammars(tokenizer: PreTrainedTokenizerBase, size: int, eos: Iterable[int]) -> Grammars | None:
    """Compiles grammars for a tokenizer; None if it is not one of the fast ones, which llguidance reads."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return None

    def lexicon() -> Any:
        hf = importlib.import_module("llguidance.hf")
        return hf.from_tokenizer(tokenizer, n_vocab=size, eos_token=sorted(eos))

    return Grammars(lexicon, size)


def _compare(base: PreTrainedTokenizerBase, reasoner: PreTrainedTokenizerBase) -> None:
    """Ordinary tokens must agree; control tokens may be renamed between a base and its descendants.

    Control tokens are those that were added to a vocabulary. An id that is one of them in one tokenizer and
    an ordinary token in the other is a difference; an id that the other has no token for is none.
    """
    both = (base, reasoner)
    tables = [{token_id: token for token, token_id in each.get_vocab().items()} for each in both]
    ordinary = {
        token_id
        for table, each in zip(tables, both, strict=True)
        for token_id in table.keys() - each.added_tokens_decoder.keys()
    }
    differ = sorted(
        token_id
        for token_id in tables[0].keys() | tables[1].keys()
        if tables[0].get(token_id) != tables[1].get(token_id)
    )
    wrong = [token_id for token_id in differ if token_id in ordinary]
    shown = _examples(wrong or differ, tables)
    if wrong:
        msg = (
            f"the tokenizers differ at {len(wrong)} of {max(map(len, tables))} token ids ({shown}): "
            "base and reasoner must come from one model family that shares a vocabulary. If they do "
            "and only the tokenizer files differ, pass check_vocabulary=False"
        )
        raise VocabularyMismatchError(msg)
    if differ:
        logger.info("%d control tokens differ between the tokenizers (%s)", len(differ), shown)


def _examples(ids: Sequence[int], tables: Sequence[dict[int, str]]) -> str:
    return ", ".join(
        f"{token_id}: {tables[0].get(token_id)!r} / {tables[1].get(token_id)!r}" for token_id in ids[:3]
    )


def _eos(tokenizers: Iterable[Any], models: Iterable[Any]) -> Iterable[int]:
    """Every id that ends an answer, by a tokenizer or by a model's generation settings."""
    for tokenizer in tokenizers:
        if tokenizer.eos_token_id is not None:
            yield tokenizer.eos_token_id
    for model in models:
        settings = getattr(model, "generation_config", None)
        ids = getattr(settings, "eos_token_id", None)
        yield from [] if ids is None else [ids] if isinstance(ids, int) else ids


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


def _decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[int]], str]:
    """Ids to text without special tokens, straight from the fast tokenizer where there is one.

    It is asked twice a token, and what transformers wraps around it takes most of the time.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return functools.partial(_decode, tokenizer)
    return lambda ids: str(fast.decode(list(ids), skip_special_tokens=True))


def _piece(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    text = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
    return str(text)

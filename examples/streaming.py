"""Streaming, with every takeover marked where it happens, and what the base would have said there.

Run it with `python examples/streaming.py`, or with a story of your own in quotes behind that. `watch` works
around anything that calls the model: a chain, an agent, a graph, and their `astream`.
"""

import sys

from langchain_core.messages import AIMessageChunk

from delegate_llm import Decision, DelegatedChatModel, watch

# Your own two models go here.
model = DelegatedChatModel("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")


def marked(text: str, takeovers: list[Decision]) -> str:
    """The text of a chunk, with the takeovers in it.

    A takeover is told just before the chunk with its token. The base runs ahead, and where the reasoner says
    something else, the rest of that draft is dropped: such a token ends its chunk. (Text that might begin a
    stop string or a tag is held back for a moment; a note about it would come that much too early.)
    """
    notes = [f" [base: {each.base_token.strip()}]" for each in takeovers if each.changed]
    return text + "".join(notes)


question = "Zoe buys 6 jars of 4 beads each. She sells 9 beads. How many beads are left?"
takeovers: list[Decision] = []
answer = AIMessageChunk(content="")
with watch(takeovers.append):
    for chunk in model.stream(" ".join(sys.argv[1:]) or question):
        print(marked(chunk.text, takeovers), end="", flush=True)
        takeovers.clear()
        answer += chunk
print()

# Chunks add up to the message, and the last one carries the record.
summary = answer.response_metadata["delegation"]["summary"]
print(f"The reasoner wrote {summary['takeovers']} of {summary['tokens']} tokens ({summary['share']:.1%}).")

"""A prompt, the model and a parser: a `DelegatedChatModel` in a chain like any other chat model.

Run it with `python examples/chain.py`. It asks the same question of both models together, and of the base
alone, and shows what the few tokens of the reasoner changed.
"""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from delegate_llm import DelegatedChatModel

# The pair that ships with the package. Your own two models go here, by hub id or folder: a cheap base and a
# reasoner with the same vocabulary, such as "Qwen/Qwen3-1.7B-Base" and "Qwen/Qwen3-8B".
model = DelegatedChatModel("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")

# These toy models know little stories about things that are counted. Your prompt may of course have a system
# message, too; theirs has none, because they have never seen one.
prompt = ChatPromptTemplate.from_messages([("human", "{story} How many {things} does {name} have now?")])
story = {
    "story": "Tom has 3 boxes with 4 pens in each. Tom sells 5 pens.",
    "things": "pens",
    "name": "Tom",
}

chain = prompt | model | StrOutputParser()
print("delegated: ", chain.invoke(story))

# Every setting can also be given to a single call. Without a budget no reasoner runs.
base_alone = prompt | model.bind(budget=0) | StrOutputParser()
print("base alone:", base_alone.invoke(story))

# Without the parser there is the whole message, with a record of what was decided and what it cost.
message = (prompt | model).invoke(story)
record = message.response_metadata["delegation"]
for takeover in record["takeovers"]:
    print(f"token {takeover['position']}: {takeover['token']!r} instead of {takeover['base_token']!r}")
print(f"The reasoner wrote {record['summary']['takeovers']} of {record['summary']['tokens']} tokens.")

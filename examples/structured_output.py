"""Structured output: answers as objects of a pydantic class. A grammar guarantees their form.

Run it with `python examples/structured_output.py`. The grammar holds both models to the form while they
write, so no answer has to be repaired or asked for again. What they fill in is up to them: the base alone
puts nearly random numbers into this form, and a token or two of the reasoner mend most answers, not all.
"""

from pydantic import BaseModel

from delegate_llm import DelegatedChatModel


class Packing(BaseModel):
    """How many boxes there are, and how many things are in each."""

    boxes: int
    each: int


# Your own two models go here. These toys were trained to solve such stories and to call three tools; a form
# like this one they have never seen.
model = DelegatedChatModel("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")
delegated = model.with_structured_output(Packing)
base_alone = model.with_structured_output(Packing, budget=0)

stories = (
    "Tom has 3 boxes with 4 pens in each. Tom sells 5 pens. How many pens does Tom have now?",
    "Ann has 6 boxes with 5 eggs in each. She loses 7 of them. How many eggs are left?",
    "There are 2 boxes in the room of Leo, and each holds 9 keys. How many keys are there in the end?",
)
for story in stories:
    print(story)
    print("    delegated: ", repr(delegated.invoke(story)))
    print("    base alone:", repr(base_alone.invoke(story)))

# With `include_raw` the message comes along, and its record says who wrote what.
answer = model.with_structured_output(Packing, include_raw=True).invoke(stories[0])
print("\nThe first form as it was written:", answer["raw"].tool_calls[0]["args"])
for takeover in answer["raw"].response_metadata["delegation"]["takeovers"]:
    print(f"    token {takeover['position']}: {takeover['token']!r} instead of {takeover['base_token']!r}")

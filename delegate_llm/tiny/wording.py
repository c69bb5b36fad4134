"""The words that the problems are made of: tables, and nothing else.

Every sentence names its number in words that a model has to read: several phrasings tell of one
operation, and no phrasing is shared by two. A vocabulary this small lets a tokenizer of a few
hundred entries keep each word whole.
"""

from typing import Final

_HE: Final = ("Tom", "Ben", "Max", "Sam", "Leo", "Jack", "Omar", "Paul")
_SHE: Final = ("Ann", "Mia", "Eva", "Zoe", "Lily", "Rosa", "Nina", "Jane")
NAMES: Final = dict.fromkeys(_HE, "He") | dict.fromkeys(_SHE, "She")
"""Names, with the pronoun that may take the name's place in later sentences."""

THINGS: Final = (
    "pens", "books", "coins", "stamps", "cards", "shells", "apples", "beads",
    "balls", "keys", "eggs", "cookies", "stones", "roses",
)  # fmt: skip
"""What is counted."""

CONTAINERS: Final = ("boxes", "bags", "jars", "trays")

OTHERS: Final = ("cats", "dogs", "sisters", "brothers", "kites", "hats", "bikes", "birds")
"""What distracts: never counted, never asked for."""

START: Final = (
    "{name} has {a} {things}.",
    "{name} starts with {a} {things}.",
    "There are {a} {things} on the table of {name}.",
)
START_TIMES: Final = (
    "{name} has {a} {containers} with {b} {things} in each.",
    "{name} buys {a} {containers} of {b} {things} each.",
    "There are {a} {containers} in the room of {name}, and each holds {b} {things}.",
)
MORE: Final = (
    "{who} buys {b} more.",
    "{who} finds {b} more {things}.",
    "A friend brings {b} new {things}.",
    "{who} gets {b} {things} from a friend.",
)
LESS: Final = (
    "{who} sells {b} {things}.",
    "{who} loses {b} of them.",
    "{who} gives {b} {things} to a friend.",
    "Then {b} {things} break.",
)
TIMES: Final = (
    "Soon {who} has {b} times as many.",
    "The {things} become {b} times as many.",
)
DISTRACTION: Final = (
    "{name} also has {b} {others}.",
    "There are {b} {others} too.",
    "{who} sees {b} {others}.",
)
QUESTION: Final = (
    "How many {things} does {name} have now?",
    "How many {things} are there in the end?",
    "How many {things} are left?",
)

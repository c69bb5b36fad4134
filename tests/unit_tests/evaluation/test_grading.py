"""What counts as right, and what as unread."""

from __future__ import annotations

import threading

import pytest

from delegate_llm.errors import RequestError
from delegate_llm.evaluation.grading import CHECKERS, Grade, check_answer, checker_from, grade


@pytest.mark.parametrize(
    ("checker", "text", "answer", "correct", "read"),
    [
        ("math", r"So \boxed{\frac{1}{2}}.", "0.5", True, r"\frac{1}{2}"),
        ("math", "$x^2 + 2x + 1$", "(x+1)^2", True, "x^2 + 2x + 1"),
        ("math", "It is $(3, 4)$.", "(3,4)", True, "(3, 4)"),
        ("math", "The answer is 12 apples.", "12", True, "12"),
        ("math", "The answer is 13.", "12", False, "13"),
        ("math", "I do not know.", "12", False, None),
        ("math", "", "12", False, None),
        ("math", r"\boxed{3\sqrt{13}}", r"3\sqrt{13}", True, r"3\sqrt{13}"),
        ("math", r"\boxed{3}", r"3\sqrt{13}", False, "3"),
        ("math", r"\boxed{6+9i}", "6 + 9i", True, "6+9i"),
        ("math", r"\boxed{-1,2}", "2,-1", True, "-1,2"),
        ("math", r"\boxed{10,080}", r"10,\! 080", True, "10,080"),
        ("math", "The answer is 18.", "18 dollars", True, "18"),
        ("math", "So she has $18.", "$18", True, "18"),
        ("math", "#### 1,250", "5 * 250 = <<5*250=1250>>1,250 in all.\n#### 1,250", True, "1250"),
        ("math", "The answer is 5.", "5 * 250 = <<5*250=1250>>1,250 in all.\n#### 1,250", False, "5"),
        ("math", r"It is $\boxed{4}$.", r"If $x = 2$, it is $\boxed{2^2}$.", True, "4"),
        ("math", r"She makes 9 x 2 = \$18 a day.", "18", True, "18"),
        ("math", r"**\$18**", "18", True, "18"),
        ("math", "The answer is \N{MINUS SIGN}3.", "-3", True, "-3"),
        ("math", "The answer is (2,5).", "(2,5)", True, "(2,5)"),
        ("math", "The answer is 2^{10}.", "1024", True, "2^{10}"),
        ("math", r"The answer is \dfrac{1}{2}.", "0.5", True, r"\frac{1}{2}"),
        ("math", "The answer is 3, not 4.", "4", False, "3"),
        ("number", "The answer is 20 - 5 = 15.", "15", True, "15"),
        ("number", "The answer is $20-5=<<20-5=15>>15.", "15", True, "15"),
        ("number", "The answer is 12 = 3 * 4", "12", True, "12"),
        ("number", "**Answer**: 12. Note: 1 dozen.", "12", True, "12"),
        ("number", "The answer should be 7. I used 2 steps.", "7", True, "7"),
        ("number", "The answer is \N{MINUS SIGN}3.", "-3", True, "-3"),
        ("number", "The area is 15 m^2.", "15", True, "15"),
        ("number", "The answer is 1/2.", "1", False, None),
        ("number", r"So \boxed{\frac{3}{4}}", "3", False, None),
        ("number", "We get 2 1/2", "2", False, None),
        ("number", "The answer is 10^3.", "10", False, None),
        ("number", "It is 6:15.", "15", False, None),
        ("number", "3 * 4 = 12, and the answer is 1,234.50 pens.", "1234.5", True, "1,234.50"),
        ("number", "We get 12", "12", True, "12"),
        ("number", r"\boxed{-3} and not 4", "-3", True, "-3"),
        ("number", "12 or 13", "12", False, "13"),
        ("number", "#### 72", "so 70 + 2 = 72\n#### 72", True, "72"),
        ("number", "none", "12", False, None),
        ("number", "from 10-5", "-5", False, "5"),
        ("number", "The answer is 7. Is the answer is clear?", "7", True, "7"),
        ("stated", "First 3 * 4 = 12. The answer is 12.", "12", True, "12"),
        ("stated", "The answer is 3. No, the answer is 12.", "12", True, "12"),
        ("stated", "We get 12", "12", False, None),
        ("choice", "The answer is (B).", "B", True, "B"),
        ("choice", "A or B? C", "C", True, "C"),
        ("choice", "I think so", "B", False, None),
        *(
            ("choice", text, "B", True, "B")
            for text in (
                *("B. Because C is wrong.", "B) 42", "(b)", "$B$", "[B]", "<answer>B</answer>"),
                *("Option B is correct.", "The correct option is B because A fails.", "The answer is (b)."),
                *('{"answer": "B"}', "Answer: I believe it is B.", "The answer is not A but B."),
                "A) 3\nB) 4\nC) 5\nSo it is B",
            )
        ),
        ("choice", "A) 3\nB) 4\nC) 5", "B", False, None),
        ("choice", "The answer is A because it is.", "A", True, "A"),
        ("choice", "It has to be **B**", "B", True, "B"),
        ("exact", " to be \n or not ", "to be or not", True, "to be or not"),
        ("exact", "To be", "to be", False, "To be"),
        ("exact", " ", "to be", False, None),
        ("contains", "It is Paris, of course.", "paris", True, "it is paris, of course."),
        ("contains", "", "paris", False, None),
        ("contains", "15 pens", "5", False, "15 pens"),
        ("contains", "It is 5.", "5", True, "it is 5."),
        ("contains", "我在东京住", "东京", True, "我在东京住"),
    ],
)
def test_checkers(checker: str, text: str, answer: str, correct: bool, read: str | None) -> None:
    assert grade(text, answer, checker) == Grade(correct, read)


@pytest.mark.parametrize("text", ["9**9**9**9**9", "$" * 1001, "\\frac{" * 500, "\x00\ud800", "(" * 5000])
def test_hostile_answers_are_wrong_and_end(text: str) -> None:
    assert not grade(text, "3", "math").correct


def test_mathematics_beside_the_main_thread() -> None:
    found: list[Grade] = []
    texts = ["The answer is 7.", r"\boxed{9^{9^{9}}}", r"\boxed{7^{777777}}", r"\boxed{99999!}"]
    thread = threading.Thread(target=lambda: found.extend(grade(text, "7", "math") for text in texts))
    thread.start()
    thread.join()
    assert found == [Grade(correct=True, read="7"), *[Grade(correct=False, read=None)] * 3]


@pytest.mark.parametrize("name", CHECKERS)
def test_answers_that_a_checker_cannot_read(name: str) -> None:
    check_answer("B" if name == "choice" else "12", name, CHECKERS[name])
    with pytest.raises(RequestError, match=r"cannot be read by the checker"):
        check_answer(" ", name, CHECKERS[name])


def test_a_checker_of_ones_own() -> None:
    own = checker_from("operator:contains")
    assert own("abc", "b") == Grade(correct=True, read="abc")
    assert not own("abc", "d").correct
    broken = checker_from("operator:countOf")
    with pytest.raises(RequestError, match=r"'operator:countOf' raised TypeError.* right answer '3'"):
        broken(None, "3")  # type: ignore[arg-type]
    for place, said in (("nowhere:f", "cannot take"), ("os:f", "cannot take"), ("os:sep", "no function")):
        with pytest.raises(RequestError, match=said):
            checker_from(place)

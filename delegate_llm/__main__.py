"""`python -m delegate_llm`: the command line, where its script is not on the path."""

from delegate_llm.cli import app

if __name__ == "__main__":
    app(prog_name="delegate-llm")

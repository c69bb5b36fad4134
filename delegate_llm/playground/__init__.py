"""The view of answers, live in the browser: `delegate-llm playground`."""

"""How well models do, measured: on problems in text and with tools, as agents, and where takeovers fell."""

"""The parts of `DelegatedChatModel`: a call's settings, running it on a pair, batches, records, names."""

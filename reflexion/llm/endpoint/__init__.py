"""Speaks to OpenAI-compatible endpoints: what goes out, what comes back, and what is learnt of each."""

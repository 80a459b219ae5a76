"""Language models: OpenAI-compatible endpoints, the embedded model, recordings and scripts."""

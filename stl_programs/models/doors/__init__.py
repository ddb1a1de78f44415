"""Our models for others: as dspy LMs, and as LiteLLM providers."""

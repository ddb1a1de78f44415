"""Models behind a network: OpenAI-compatible servers, LiteLLM, any dspy LM, pools of servers."""

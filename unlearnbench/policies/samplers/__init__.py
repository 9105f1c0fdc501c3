"""Samplers turn prompts into completions: our own decoding loop, vLLM, and a policy spread over processes."""

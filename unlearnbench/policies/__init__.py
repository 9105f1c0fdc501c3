"""A policy: weights, tokenizer, adapters, sampling."""

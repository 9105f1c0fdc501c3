"""A policy: weights, tokenizer, adapters, sampling.

In: a folder or a name on the Hub (`policy`), and prompts. Out: tokens with their log-probabilities (samplers/), and
what training needs of a model: how it reads rows (`layout`), LoRA, sharding, activation checkpointing.
"""

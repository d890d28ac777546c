"""Families of models that people fine-tune, tiny and with random weights, through the whole job: `make test-models`."""

"""Says whose training data a language model's answers drew on, and pays for it."""

__version__ = "0.2.0"

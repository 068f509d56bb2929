"""Does attribution predict what really happens without a provider's data? Retraining says."""

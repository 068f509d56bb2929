"""Attribution against retraining."""

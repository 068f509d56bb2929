"""Files to records: providers, training data, logged outputs. What cannot be used is named and set aside."""

"""A trained model as it is handed on: bundle, light reader, predictor, pyfunc, card."""

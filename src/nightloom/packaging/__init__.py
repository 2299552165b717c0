"""A trained model as others get it: bundle, pyfunc, card."""

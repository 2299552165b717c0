"""Whether this machine is ready for nights: one line a part, ok, warn or fail, with what to do."""

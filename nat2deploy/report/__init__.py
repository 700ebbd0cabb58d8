"""Pictures and the HTML report of a run, from its files alone."""

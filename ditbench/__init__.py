"""The command line: the one place that knows harness and report both."""

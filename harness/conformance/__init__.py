"""Does a method keep the contract? Checks that its author runs: each says what is wrong, where, and what to do.

``checks.run(subject)`` yields one result a check, in order. An error inside a check is a fault of that check.
"""

"""Tables of the report. Each module turns rows of a run into tables; ``table`` is what they are made of."""

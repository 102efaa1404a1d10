"""Another distribution: a static model of its own, and what makes it dynamic, trains it and adapts it."""

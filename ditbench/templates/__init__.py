"""What ``ditbench init`` writes: texts whose words in @ signs are replaced, by kind of plugin."""

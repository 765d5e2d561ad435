"""Many run directories to one comparison: a table, a page and the numbers as JSON."""

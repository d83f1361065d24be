"""What: the answer of every operator, bit for bit, in numpy."""

"""How fast the data path is: `make bench`, or `python -m benchmarks`."""

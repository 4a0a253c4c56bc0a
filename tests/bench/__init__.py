"""The benchmark: `make bench`.  What is measured and how is described in docs/benchmarks.md."""

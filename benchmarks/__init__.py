"""Speed of the package against its peers: `python -m benchmarks.bench`."""

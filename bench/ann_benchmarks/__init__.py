"""NoPokeDB for ann-benchmarks (github.com/erikbern/ann-benchmarks); its README says how it is run."""

"""NoPokeDB for VectorDBBench (github.com/zilliztech/VectorDBBench); its README says how it is run."""

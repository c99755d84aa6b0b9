"""What runs, flows and sweeps leave behind: numbers, labelled datasets, tables and figures."""

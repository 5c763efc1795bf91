"""The command line: Hydra runs and sweeps, and a few subcommands beside them."""

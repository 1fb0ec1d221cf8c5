"""The verbs of `xlnet-jax`, one module each, found by name in `xlnet_jax.cli`.

A verb module holds `SUMMARY` (one line), `DESCRIPTION` and `EXAMPLES` (for its help),
`add_arguments(parser)` and `run(args) -> exit status`. At import it loads the standard library
only; whatever does the job is imported inside `run`.
"""

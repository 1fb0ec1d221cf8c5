"""`python -m xlnet_jax` is the command `xlnet-jax`."""

import sys

from xlnet_jax.cli import main

sys.exit(main())

"""Where the TPU's library (libtpu) is installed for its compiler alone, it must not look for a TPU.

Light to import: the command line does so before anything else.
"""

import glob
import os

_OFFLINE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v3-8",  # of no consequence: slices are always named
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # plans beside each other
}


def has_chips() -> bool:
    """Whether this machine has TPU chips."""
    return bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))


def stay_offline() -> None:
    """Keeps the library from asking the network what machine it is on, and complaining.

    Variables that are set already stay.
    """
    for name, value in _OFFLINE.items():
        os.environ.setdefault(name, value)

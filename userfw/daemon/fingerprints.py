"""Where the systems that `osf` knows are read from: files in the format of OpenBSD's pf.os, as nft and nfnl_osf take them."""

from __future__ import annotations

from pathlib import Path

from userfw.engine.fingerprint import Fingerprints

PLACES = (
    "/etc/nftables/osf/pf.os",
    "/usr/share/nftables/osf/pf.os",
    "/etc/pf.os",
    "/usr/share/doc/nftables/examples/pf.os",
)


def load_fingerprints(path: str | None) -> Fingerprints | None:
    """Those of the file, or of the first of PLACES that is there, else None. ValueError if the file cannot be read."""
    for place in (path,) if path is not None else PLACES:
        try:
            with Path(place).open(encoding="latin-1") as file:
                return Fingerprints(file)
        except OSError as error:
            if path is not None:
                raise ValueError(f"daemon.osf_fingerprints: {path}: {error.strerror}") from None
    return None

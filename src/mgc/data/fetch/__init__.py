"""Downloads that resume, and archives that are unpacked safely. Nothing that they announce is trusted."""

from mgc.data.fetch.downloading import check_digest, download
from mgc.data.fetch.unpacking import Unpacked, unpack

__all__ = ["Unpacked", "check_digest", "download", "unpack"]

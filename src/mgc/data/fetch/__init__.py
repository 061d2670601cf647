"""Large files brought here and opened: downloads that go on where they stopped, archives unpacked safely.

Nothing here knows what the files are. A name within an archive, a size it announces and whatever a server
answers are taken for what a stranger wrote.
"""

from mgc.data.fetch.downloading import check_digest, download
from mgc.data.fetch.unpacking import Refused, Unpacked, unpack

__all__ = ["Refused", "Unpacked", "check_digest", "download", "unpack"]
